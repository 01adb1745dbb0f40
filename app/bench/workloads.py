"""The three workloads against one running server."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench import sasl
from bench.chat import Chat, ChatResult
from bench.crowd import Crowd
from bench.results import CHAT, IDLE, LOGIN, Cell, Sample
from bench.servers.base import account
from bench.transport import Loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.servers import Server
    from bench.servers.base import CpuTimes
    from bench.session import Account

# Clients that come and go on a fresh server before it is measured, so that its code is loaded.
_WARM_UP_LOGINS = 200
_LOGIN_TIMEOUT = 120.0
_ANSWER_TIMEOUT = 30.0
_SETTLE_SECONDS = 10.0
_SETTLED_SHARE = 0.003


class WorkloadError(Exception):
    """The measurement did not give a number that means something."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much of everything."""

    pairs: int = 200
    windows: Sequence[int] = (1, 10)
    warm_up: float = 1.0
    duration: float = 3.0
    logins: int = 600
    sessions: int = 5000
    accounts: int = 1000
    mechanism: str = sasl.SCRAM

    def __post_init__(self) -> None:
        if self.logins >= self.accounts:
            raise ValueError(f"{self.logins} logins need more than {self.accounts} accounts: others log in before")


def chat(server: Server, load: Load, *, tls: bool, sm: bool) -> dict[Cell, Sample]:
    """Log the pairs in once and measure each window.

    Raises:
        SessionError: a client could not log in or lost its session.
        LoadTimeoutError: the server is too slow.
        ServerError: it has ended.
    """
    loop = Loop()
    try:
        crowd = Crowd(loop, server.endpoint(tls=tls), mechanism=load.mechanism, management=sm)
        accounts = [account(number, load.accounts) for number in range(2 * load.pairs)]
        conversation = Chat(loop, crowd, crowd.log_in(accounts, _LOGIN_TIMEOUT), management=sm)
        samples = {}
        for window in load.windows:
            result = conversation.measure(window, load.warm_up, load.duration, lambda: server.cpu().server)
            samples[Cell(CHAT, tls, window, sm)] = _chat_sample(result, conversation.first_bounce())
        crowd.log_out()
        return samples
    finally:
        loop.close()


def _chat_sample(result: ChatResult, bounce: str) -> Sample:
    if not result.messages:
        raise WorkloadError(f"no message arrived. {bounce and 'One came back: ' + bounce}")
    faults = asdict(result.findings)
    faults["unacknowledged"] = result.unacknowledged
    return Sample(
        cpu_us=result.server_cpu / result.messages * 1e6,
        wall_per_s=result.messages / result.seconds,
        p50_ms=percentile(result.latencies, 50) * 1e3,
        p99_ms=percentile(result.latencies, 99) * 1e3,
        faults=faults,
        extra={
            "messages": result.messages,
            "server_busy": result.server_cpu / result.seconds,
            "generator_busy": result.own_cpu / result.seconds,
        },
    )


def login(server: Server, load: Load, *, tls: bool) -> dict[Cell, Sample]:
    """CPU of a login with everything that belongs to it until the stream is closed, on an otherwise idle server.

    A login is that of a user whom the server knows and has not seen since it was started: the last `logins`
    accounts log in once each, after a restart. Reported apart are their logins once more at once, which caches
    serve (`cached_...`), and their very first ones, for which a server may have to store keys (`first_...`).

    Raises:
        SessionError, LoadTimeoutError, ServerError: as for chat().
    """
    accounts = [account(number, load.accounts) for number in range(load.accounts - load.logins, load.accounts)]
    extra: dict[str, float] = {}
    if not server.accounts_seen:
        _warm_up(server, load, tls=tls)
        cpu, _ = _logins(server, accounts, load, tls=tls)
        extra |= {"first_cpu_us": cpu.server, "first_auth_cpu_us": cpu.auth}
        server.accounts_seen = True
    server.restart()
    _warm_up(server, load, tls=tls)
    cpu, crowd = _logins(server, accounts, load, tls=tls)
    extra["auth_cpu_us"] = cpu.auth
    cached, _ = _logins(server, accounts, load, tls=tls)
    extra |= {"cached_cpu_us": cached.server, "cached_auth_cpu_us": cached.auth}
    seconds = sorted(crowd.login_seconds)
    sample = Sample(
        cpu_us=cpu.server / load.logins * 1e6,
        wall_per_s=load.logins / crowd.last_seconds,
        p50_ms=percentile(seconds, 50) * 1e3,
        p99_ms=percentile(seconds, 99) * 1e3,
        extra={name: used / load.logins * 1e6 for name, used in extra.items()},
    )
    return {Cell(LOGIN, tls, window=None, sm=False): sample}


def _logins(server: Server, accounts: Sequence[Account], load: Load, *, tls: bool) -> tuple[CpuTimes, Crowd]:
    """Log each account in and out; returns the CPU that the server used, and the clients."""
    loop = Loop()
    try:
        crowd = Crowd(loop, server.endpoint(tls=tls), mechanism=load.mechanism, management=False)
        before = server.cpu()
        crowd.come_and_go(accounts, _LOGIN_TIMEOUT)
        return server.cpu().since(before), crowd
    finally:
        loop.close()


def _warm_up(server: Server, load: Load, *, tls: bool) -> None:
    """Have the server load code by some logins, of accounts that the login workload does not use."""
    others = min(_WARM_UP_LOGINS, load.accounts - load.logins)
    accounts = [account(number, load.accounts) for number in range(others)]
    _logins(server, accounts, load, tls=tls)


def idle(server: Server, load: Load, *, tls: bool) -> dict[Cell, Sample]:
    """Memory of a session that is logged in and does nothing, on a freshly started server.

    Raises:
        SessionError, LoadTimeoutError, ServerError: as for chat().
    """
    # What the first logins load and cache once and for all is not memory of a session.
    _warm_up(server, load, tls=tls)
    loop = Loop()
    try:
        crowd = Crowd(loop, server.endpoint(tls=tls), mechanism=load.mechanism, management=False)
        before = _settled_memory(server, loop)
        crowd.log_in((account(number, load.accounts) for number in range(load.sessions)), _LOGIN_TIMEOUT)
        after = _settled_memory(server, loop)
        crowd.check()
        sample = Sample(
            kib=(after - before) / load.sessions,
            faults={"lost": crowd.silent(_ANSWER_TIMEOUT)},
            extra={"sessions": load.sessions, "kib_before": before, "kib_after": after},
        )
        return {Cell(IDLE, tls, window=None, sm=False): sample}
    finally:
        loop.close()


def _settled_memory(server: Server, loop: Loop) -> int:
    """The server's memory once it hardly changes from one second to the next."""
    memory = server.memory_kib()
    waited = 0.0
    while waited < _SETTLE_SECONDS:
        loop.run_for(1.0)
        waited += 1.0
        now = server.memory_kib()
        if abs(now - memory) <= _SETTLED_SHARE * memory and waited >= 2.0:
            return now
        memory = now
    return memory


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the sorted values lie (nearest rank)."""
    rank = max(0, min(len(ordered) - 1, round(percent / 100 * len(ordered) + 0.5) - 1))
    return ordered[rank]
