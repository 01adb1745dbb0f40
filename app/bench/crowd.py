"""Many sessions at once: logs accounts in with bounded concurrency, keeps them or lets them come and go."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from bench.session import Account, Endpoint, Session, SessionError
from bench.transport import LoadTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.transport import Loop

CONCURRENCY = 20


class Crowd:
    """The sessions of one measurement on one loop.

    Attributes:
        sessions: those that are logged in, in the order of their accounts once log_in() returned.
        login_seconds: how long each login of the last come_and_go() took, until the own presence came back.
        last_seconds: how long the last log_in() or come_and_go() took as a whole.
    """

    def __init__(self, loop: Loop, endpoint: Endpoint, *, mechanism: str, management: bool) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._mechanism = mechanism
        self._management = management
        self._waiting: Iterator[Account] = iter(())
        self._opening: set[Session] = set()
        self._leaving: set[Session] = set()
        self._staying = True
        self._exhausted = True
        self._errors: list[str] = []
        self.sessions: list[Session] = []
        self.login_seconds: list[float] = []
        self.last_seconds = 0.0

    def log_in(self, accounts: Iterable[Account], timeout: float, concurrency: int = CONCURRENCY) -> list[Session]:
        """Log all these accounts in and keep them; returns their sessions in the order of the accounts.

        Raises:
            SessionError: a login failed.
            LoadTimeoutError: they were not all logged in after `timeout` seconds.
        """
        order = {account: number for number, account in enumerate(accounts)}
        before = len(self.sessions)
        self._run(order, timeout, concurrency, staying=True)
        self.sessions[before:] = sorted(self.sessions[before:], key=lambda session: order[session.account])
        return self.sessions[before:]

    def come_and_go(self, accounts: Iterable[Account], timeout: float, concurrency: int = CONCURRENCY) -> None:
        """Log each account in and out again, `concurrency` at a time.

        Raises:
            SessionError: a login failed.
            LoadTimeoutError: they were not all through after `timeout` seconds.
        """
        self.login_seconds = []
        self._run(accounts, timeout, concurrency, staying=False)

    def silent(self, timeout: float) -> int:
        """Ping the server from each session (XEP-0199); returns how many got no answer in this time."""
        before = [session.inbound for session in self.sessions]
        for session in self.sessions:
            session.ping()

        def unanswered() -> int:
            return sum(session.inbound == count for session, count in zip(self.sessions, before, strict=True))

        with contextlib.suppress(LoadTimeoutError):
            self._loop.run(lambda: unanswered() == 0, timeout, "the answers to pings")
        return unanswered()

    def log_out(self, timeout: float = 30.0) -> None:
        """Close all sessions in an orderly way.

        Raises:
            SessionError: one of them had broken.
            LoadTimeoutError: the server did not close its side in time.
        """
        self._leaving = set(self.sessions)
        for session in self.sessions:
            session.close()
        self._loop.run(lambda: not self._leaving, timeout, "closing the sessions")
        self.sessions = []
        self.check()

    def check(self) -> None:
        """Complain when a session broke since the last check.

        Raises:
            SessionError: one did; the text names the first one and how many there are.
        """
        if self._errors:
            errors, self._errors = self._errors, []
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            raise SessionError(errors[0] + more)

    def broken(self) -> int:
        """How many sessions have ended with an error and have not been complained about yet."""
        return len(self._errors)

    def _run(self, accounts: Iterable[Account], timeout: float, concurrency: int, *, staying: bool) -> None:
        self._waiting = iter(accounts)
        self._staying = staying
        self._exhausted = False
        begin = time.perf_counter()
        for _ in range(concurrency):
            self._open_next()
        self._loop.run(
            lambda: bool(self._errors) or (self._exhausted and not self._opening and not self._leaving),
            timeout,
            "logging in",
        )
        self._exhausted = True
        self.last_seconds = time.perf_counter() - begin
        self.check()

    def _open_next(self) -> None:
        account = None if self._exhausted else next(self._waiting, None)
        if account is None:
            self._exhausted = True
            return
        self._opening.add(
            Session(
                self._loop,
                self._endpoint,
                account,
                self,
                mechanism=self._mechanism,
                management=self._management,
            )
        )

    def session_ready(self, session: Session) -> None:
        """See session.Owner."""
        self._opening.discard(session)
        if self._staying:
            self.sessions.append(session)
            self._open_next()
        else:
            self.login_seconds.append(session.ready_time - session.start_time)
            self._leaving.add(session)
            session.close()

    def session_ended(self, session: Session, error: str) -> None:
        """See session.Owner."""
        self._opening.discard(session)
        self._leaving.discard(session)
        if error:
            self._errors.append(error)
        elif not self._staying:
            self._open_next()
