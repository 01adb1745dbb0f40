"""Commands that clients carry out step by step with forms. Modules provide them; this one keeps the sessions.

A command begins with a :class:`Stage`, a form to be filled in, or with an :class:`Outcome`, its end; what is done with a
stage's form gives the next one. Most commands have one form: see :class:`FormCommand`.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from monktalk.common.config import Kind, Option
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.module import Module, Target, iq
from monktalk.xmpp.protocol import adhoc, forms
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.adhoc import CANCEL, COMPLETE, EXECUTE, NEXT, PREVIOUS, Note, Request, problem
from monktalk.xmpp.protocol.disco import Identity, Item, NodeQuery
from monktalk.xmpp.protocol.errors import StanzaError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from monktalk.common.config import Settings
    from monktalk.common.jid import JID
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.module import Reply
    from monktalk.xmpp.core.session import Session
    from monktalk.xmpp.protocol.forms import Submission
    from monktalk.xmpp.protocol.stanza import Stanza
    from monktalk.xmpp.protocol.xmltree import Element

log = get_logger(__name__)

_MAX_STAGES: Final = 20


class Access(Enum):
    """Who may carry out a command."""

    ADMINISTRATORS = "administrators"
    """The administrators of the host."""
    USERS = "users"
    """Everybody who has an account at the host."""


class CommandFailed(Exception):
    """A command could not be carried out; its user is told the message. The command has ended."""


@dataclass(frozen=True)
class Outcome:
    """The end of a command: what its user is told, and perhaps a form of type ``result``."""

    notes: Sequence[Note] = ()
    form: Element | None = None


@dataclass(frozen=True)
class Stage:
    """A form to be filled in, and what is done with it then. ``last`` says that this ends the command."""

    form: Element
    form_type: str
    proceed: Callable[[Submission], Awaitable[Stage | Outcome]]
    last: bool = True


class Command(Protocol):
    """What a module provides: see :meth:`Adhoc.add`."""

    @property
    def node(self) -> str:
        """The name of the command for programs."""

    @property
    def name(self) -> str:
        """The name of the command for people."""

    @property
    def access(self) -> Access:
        """Who may carry it out."""

    async def begin(self, requester: JID) -> Stage | Outcome:
        """The first stage, or what there is to tell without one. Raises :class:`CommandFailed`."""


@dataclass(frozen=True)
class FormCommand:
    """A command that has one form, or with ``fields`` None none at all."""

    node: str
    name: str
    form_type: str
    action: Callable[[JID, Submission], Awaitable[Outcome]]
    instructions: str = ""
    fields: Sequence[forms.Field] | None = None
    access: Access = Access.ADMINISTRATORS

    async def begin(self, requester: JID) -> Stage | Outcome:
        """The form."""
        if self.fields is None:
            return await self.action(requester, forms.Submission({}))
        form = forms.form(self.form_type, self.name, self.instructions, self.fields)
        return Stage(form, self.form_type, lambda submission: self.action(requester, submission))


@dataclass
class _Execution:
    """A command under way, and the stages that its user has seen."""

    command: Command
    owner: str
    expires: float
    stages: list[Stage] = field(default_factory=list)


class Adhoc(Module):
    """Ad-hoc commands (XEP-0050). Other modules provide the commands."""

    name = "adhoc"
    features = (ns.ADHOC,)
    account_features = (ns.ADHOC,)
    options = (
        Option("session_time", Kind.DURATION, "10 min", minimum=1, doc="How long a form may wait to be filled in."),
        Option("max_sessions", Kind.INTEGER, 1000, minimum=1, doc="Commands under way at once; the oldest give way."),
        Option("max_sessions_per_client", Kind.INTEGER, 10, minimum=1, doc="Commands under way of one client."),
    )

    def __init__(self, host: VirtualHost, settings: Settings) -> None:
        super().__init__(host, settings)
        self._commands: dict[str, Command] = {}
        self._executions: OrderedDict[str, _Execution] = OrderedDict()

    @classmethod
    def of(cls, host: VirtualHost) -> Adhoc:
        """The module of a host, which must be loaded there."""
        module = host.modules[cls.name]
        assert isinstance(module, cls)
        return module

    # -- commands ------------------------------------------------------------------------------------------------

    def add(self, command: Command) -> None:
        """Offer a command. Raises ValueError when there is one of the same node."""
        if command.node in self._commands:
            raise ValueError(f"there is a command {command.node} already")
        self._commands[command.node] = command

    def remove(self, command: Command) -> None:
        """Offer a command no more; it ends where it is under way."""
        self._commands.pop(command.node, None)
        for number in [key for key, execution in self._executions.items() if execution.command is command]:
            del self._executions[number]

    def _permitted(self, command: Command, requester: JID) -> bool:
        if command.access is Access.ADMINISTRATORS:
            return self.host.is_administrator(requester)
        return requester.domain == self.host.domain and bool(requester.local)

    # -- discovery -----------------------------------------------------------------------------------------------

    @HostHooks.disco_node.handler()
    def discover(self, query: NodeQuery) -> bool:
        """Tell of the commands that the requester may carry out, at the host and at his own account (section 2)."""
        if query.account and (query.requester.local, query.requester.domain) != (query.account, self.host.domain):
            return False
        visible = [command for command in self._commands.values() if self._permitted(command, query.requester)]
        if query.node == ns.ADHOC:
            address = f"{query.account}@{self.host.domain}" if query.account else self.host.domain
            query.info.identities.append(Identity("automation", "command-list", name="Commands"))
            query.items += [Item(address, command.name, command.node) for command in visible]
            return True
        for command in visible:
            if command.node == query.node:
                query.info.identities.append(Identity("automation", "command-node", name=command.name))
                query.info.features |= {ns.ADHOC, ns.DATA_FORMS}
                return True
        return False

    # -- requests ------------------------------------------------------------------------------------------------

    @iq("set", ns.ADHOC, "command", to=(Target.HOST, Target.SELF))
    async def handle(self, stanza: Stanza, session: Session | None) -> Reply:
        """Begin a command, or go on with one."""
        payload = stanza.payload()
        assert payload is not None
        request = Request.from_element(payload)
        command = self._commands.get(request.node)
        if command is None:
            raise StanzaError("item-not-found", "there is no such command")
        if not self._permitted(command, stanza.sender):
            raise StanzaError("forbidden", "this command is not for you")
        if not request.session:
            return await self._begin(command, request, stanza.sender, session)
        return await self._continue(request, stanza.sender.full)

    async def _begin(self, command: Command, request: Request, requester: JID, session: Session | None) -> Element:
        if request.action not in (EXECUTE, NEXT, COMPLETE):
            raise problem("bad-action", "the command has not begun")
        execution = _Execution(command, requester.full, 0.0)
        try:
            step = await command.begin(requester)
        except CommandFailed as failure:
            step = Outcome([Note(str(failure), "error")])
        number = secrets.token_urlsafe(12)
        if isinstance(step, Stage):
            execution.stages.append(step)
            self._keep(number, execution, session)
        return self._answer(request, number, execution, step)

    def _keep(self, number: str, execution: _Execution, session: Session | None) -> None:
        """Remember a command under way, within the limits."""
        self._expire()
        own = [key for key, other in self._executions.items() if other.owner == execution.owner]
        for key in own[: len(own) + 1 - self.settings.max_sessions_per_client]:
            del self._executions[key]
        while len(self._executions) >= self.settings.max_sessions:
            self._executions.popitem(last=False)
        self._touch(execution)
        self._executions[number] = execution
        if session is not None:
            session.extra = session.extra or {}
            session.extra[self.name] = True

    def _touch(self, execution: _Execution) -> None:
        execution.expires = self.host.server.clock.monotonic() + self.settings.session_time

    def _expire(self) -> None:
        now = self.host.server.clock.monotonic()
        for number in [key for key, execution in self._executions.items() if execution.expires < now]:
            del self._executions[number]

    async def _continue(self, request: Request, requester: str) -> Element:
        self._expire()
        execution = self._executions.get(request.session)
        if execution is None or execution.owner != requester or execution.command.node != request.node:
            raise problem("bad-sessionid", "this command is not under way, or not any more")
        number = request.session
        if request.action == CANCEL:
            del self._executions[number]
            return adhoc.answer(request, adhoc.CANCELED, session=number)
        if request.action == PREVIOUS:
            return self._back(request, number, execution)
        stage = execution.stages[-1]
        if request.action == (NEXT if stage.last else COMPLETE):
            raise problem("bad-action", "the command is not at a point where it can do that")
        submission = _read(request, stage)
        # Nobody else goes on with it meanwhile; a refusal that asks to try again leaves it as it was.
        del self._executions[number]
        step = await self._proceed(stage, submission, number, execution)
        if isinstance(step, Stage):
            if len(execution.stages) >= _MAX_STAGES:
                raise StanzaError("resource-constraint", "the command has too many stages")
            execution.stages.append(step)
            self._touch(execution)
            self._executions[number] = execution
        return self._answer(request, number, execution, step)

    async def _proceed(
        self, stage: Stage, submission: Submission, number: str, execution: _Execution
    ) -> Stage | Outcome:
        try:
            return await stage.proceed(submission)
        except (CommandFailed, forms.InvalidForm) as failure:
            return Outcome([Note(str(failure), "error")])
        except BaseException:
            self._executions[number] = execution
            raise

    def _back(self, request: Request, number: str, execution: _Execution) -> Element:
        if len(execution.stages) < 2:
            raise problem("bad-action", "this is the first stage")
        execution.stages.pop()
        self._touch(execution)
        return self._answer(request, number, execution, execution.stages[-1])

    @staticmethod
    def _answer(request: Request, number: str, execution: _Execution, step: Stage | Outcome) -> Element:
        if isinstance(step, Outcome):
            payload = [step.form] if step.form is not None else []
            return adhoc.answer(request, adhoc.COMPLETED, session=number, notes=step.notes, payload=payload)
        actions = [COMPLETE if step.last else NEXT]
        if len(execution.stages) > 1:
            actions.append(PREVIOUS)
        return adhoc.answer(request, adhoc.EXECUTING, session=number, actions=actions, payload=[step.form])

    @HostHooks.session_closed.handler()
    def forget(self, session: Session, _reason: str) -> None:
        """The client has gone: nobody will go on with its commands."""
        if session.extra and session.extra.pop(self.name, None):
            owner = session.jid.full
            for number in [key for key, execution in self._executions.items() if execution.owner == owner]:
                del self._executions[number]


def _read(request: Request, stage: Stage) -> Submission:
    if request.form is None:
        raise problem("bad-payload", "the form is missing")
    try:
        return forms.Submission.from_element(request.form, stage.form_type)
    except forms.InvalidForm as error:
        raise problem("bad-payload", str(error)) from None
