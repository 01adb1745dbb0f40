"""The hooks of a host: every point at which a module can take part, declared and typed in one place.

A module registers a method by decorating it with the point::

    @HostHooks.user_message.handler(priority=10)
    def archive(self, session: Session, stanza: Stanza) -> bool: ...

There are three kinds. An *event* calls its handlers in order of priority (low first) until one returns True, which says that
the matter is dealt with. A *transform* hands a stanza from handler to handler, each returning it, another one, or None to
swallow it. An *async event* awaits all its handlers, one after the other. Handlers on the path of messages are plain
functions: they may start storage work, but never wait for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    # ruff does not see names inside of the lists of ParamSpec arguments.
    from monktalk.common.jid import JID  # noqa: F401
    from monktalk.xmpp.core.c2s import ClientStream  # noqa: F401
    from monktalk.xmpp.core.session import Session  # noqa: F401
    from monktalk.xmpp.protocol.disco import Item, NodeQuery  # noqa: F401
    from monktalk.xmpp.protocol.stanza import Stanza
    from monktalk.xmpp.protocol.xmltree import Element  # noqa: F401

log = get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M")

_MARK = "_monktalk_hooks"


class Chain(Generic[P, R]):
    """The handlers of one point on one host, in the order in which they are called."""

    __slots__ = ("_entries", "handlers", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.handlers: tuple[Callable[P, R], ...] = ()
        self._entries: list[tuple[int, Callable[P, R]]] = []

    def add(self, handler: Callable[P, R], priority: int = 0) -> None:
        """Register a handler; equal priorities keep the order of registration."""
        self._entries.append((priority, handler))
        self._entries.sort(key=lambda entry: entry[0])
        self._freeze()

    def remove(self, handler: Callable[P, R]) -> None:
        """Undo :meth:`add`."""
        self._entries = [entry for entry in self._entries if entry[1] != handler]
        self._freeze()

    def _freeze(self) -> None:
        self.handlers = tuple(handler for _, handler in self._entries)


class Event(Chain[P, bool | None]):
    """Calls handlers until one returns True."""

    __slots__ = ()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether a handler has dealt with the matter."""
        for handler in self.handlers:  # noqa: SIM110 - any() would make a generator for each message
            if handler(*args, **kwargs):
                return True
        return False


class AsyncEvent(Chain[P, Awaitable[None]]):
    """Awaits every handler in turn. A handler's failure is logged and does not keep the next from running."""

    __slots__ = ()

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Run all handlers."""
        for handler in self.handlers:
            try:
                await handler(*args, **kwargs)
            except Exception:
                log.exception("hook_failed", hook=self.name, handler=getattr(handler, "__qualname__", "?"))


class Transform(Chain[P, "Stanza | None"]):
    """Hands a stanza through the handlers. ``None`` swallows it."""

    __slots__ = ()

    def __call__(self, stanza: Stanza, *args: Any) -> Stanza | None:
        """What the handlers make of the stanza."""
        current: Stanza | None = stanza
        for handler in self.handlers:
            current = handler(current, *args)  # type: ignore[call-arg, arg-type]  # checked where handlers are marked
            if current is None:
                return None
        return current


class _Point(Generic[P, R]):
    """Declares a point on the class; on an instance the name is bound to the chain."""

    name: str

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def handler(self, priority: int = 0) -> Callable[[Callable[Concatenate[M, P], R]], Callable[Concatenate[M, P], R]]:
        """Mark a module's method as a handler of this point; loading the module registers it."""

        def mark(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
            marks = [*getattr(method, _MARK, ()), (self.name, priority)]
            setattr(method, _MARK, marks)
            return method

        return mark


class EventPoint(_Point[P, "bool | None"]):
    """Declares an :class:`Event`."""

    chain = Event

    @overload
    def __get__(self, instance: None, owner: type) -> EventPoint[P]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Event[P]: ...
    def __get__(self, instance: object | None, owner: type) -> EventPoint[P] | Event[P]:
        return self


class AsyncPoint(_Point[P, "Awaitable[None]"]):
    """Declares an :class:`AsyncEvent`."""

    chain = AsyncEvent

    @overload
    def __get__(self, instance: None, owner: type) -> AsyncPoint[P]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> AsyncEvent[P]: ...
    def __get__(self, instance: object | None, owner: type) -> AsyncPoint[P] | AsyncEvent[P]:
        return self


class TransformPoint(_Point[P, "Stanza | None"]):
    """Declares a :class:`Transform`; ``P`` includes the stanza."""

    chain = Transform

    @overload
    def __get__(self, instance: None, owner: type) -> TransformPoint[P]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Transform[P]: ...
    def __get__(self, instance: object | None, owner: type) -> TransformPoint[P] | Transform[P]:
        return self


class HostHooks:
    """The points of one host."""

    stream_features = EventPoint[["ClientStream", "list[bytes]"]]()
    """A stream announces its features: append to the list. The stream knows whether it is authenticated."""

    stream_element = EventPoint[["ClientStream", "Stanza"]]()
    """A stanza came before the stream was bound (in-band registration, for one)."""

    session_bound = EventPoint[["Session"]]()
    """A client has bound a resource."""

    session_available = AsyncPoint[["Session"]]()
    """A session has sent its first available presence with a priority of zero or more (again, after having been away)."""

    session_resumed = EventPoint[["Session"]]()
    """A client has resumed its session on a new connection (XEP-0198 section 5)."""

    session_closed = EventPoint[["Session", str]]()
    """A session has ended, for the reason given; it is not in the session table any more."""

    user_message = EventPoint[["Session", "Stanza"]]()
    """A local user sends a message. True: don't route it."""

    user_presence = EventPoint[["Session", "Stanza"]]()
    """A local user sends a presence stanza. True: dealt with."""

    outgoing_presence = TransformPoint[["Stanza", "Session"]]()
    """A local user's available presence, before it is broadcast or directed."""

    incoming_message = TransformPoint[["Stanza", str]]()
    """A message for a local user (the localpart), before it is delivered to sessions or stored."""

    incoming_presence = EventPoint[["Stanza"]]()
    """A presence stanza for a local user. True: dealt with."""

    incoming_iq = EventPoint[["Stanza", "Session"]]()
    """An IQ stanza is about to be delivered to a local user's session. True: dealt with. May raise StanzaError to refuse."""

    contact_removed = AsyncPoint[[str, str, "frozenset[str]"]]()
    """A user (the localpart) has no contact of that bare JID any more. There was between them, in any combination: ``to``,
    ``from`` (subscriptions as in a roster), ``ask`` (his request to the contact), ``asked`` (the contact's to him)."""

    undelivered_message = EventPoint[["Stanza", str]]()
    """No session takes the message for the user (the localpart). True: stored or dealt with."""

    storable = EventPoint[["Stanza"]]()
    """Whether a message is worth to be kept for somebody who is away. True: it is."""

    detour = EventPoint[[str]]()
    """Whether messages for a user have to go through his mailbox, because older ones are just being delivered from there."""

    mailbox_filled = EventPoint[[str]]()
    """Messages have been put into the mailbox of a user (the localpart) whose sessions are here, or may be waiting there."""

    session_left = EventPoint[["Session"]]()
    """A session goes on at another worker: what is kept for it here is of no use any more."""

    note = EventPoint[[str, str, "tuple[Any, ...]"]]()
    """Another worker tells something about a user (the localpart) whose home is here: the topic, and what belongs to it."""

    host_message = EventPoint[["Stanza"]]()
    """A message for the host itself."""

    disco_forms = EventPoint[["list[Element]"]]()
    """Forms of extended service discovery (XEP-0128) for the host: append to the list."""

    disco_items = EventPoint[["list[Item]", "JID"]]()
    """The entity asks for the items of the host (XEP-0030 section 4): append those that it may see to the list."""

    disco_node = EventPoint[["NodeQuery"]]()
    """Somebody asks for a node of the host or of an account: fill in what it has. True: the node exists."""

    features_changed = EventPoint[[]]()
    """Modules were loaded, unloaded or given other settings: what the host tells about itself may have changed."""

    account_created = AsyncPoint[[str]]()
    """An account (its localpart) was made through the server."""

    account_removed = AsyncPoint[[str]]()
    """An account was removed: delete what belongs to it."""

    def __init__(self) -> None:
        for name, point in points().items():
            # In the instance's own dictionary, so that reading it on the path of messages costs one look-up.
            self.__dict__[name] = point.chain(name)


def points() -> dict[str, EventPoint[Any] | AsyncPoint[Any] | TransformPoint[Any]]:
    """All declared points by name."""
    return {name: value for name, value in vars(HostHooks).items() if isinstance(value, _Point)}  # type: ignore[misc]


def marks(method: object) -> list[tuple[str, int]]:
    """The points, with priorities, that a method was marked for."""
    return list(getattr(method, _MARK, ()))
