"""The three workloads against one running server."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench import sasl
from bench.chat import Chat, ChatResult
from bench.crowd import Crowd
from bench.results import CHAT, IDLE, LOGIN, Cell, Sample
from bench.servers.base import CpuTimes, account
from bench.transport import Loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.servers import Server

# Accounts of the login workload: as many as log in again and again.
_REGULARS = 200
_LOGIN_TIMEOUT = 120.0
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
    logins: int = 1000
    sessions: int = 5000
    accounts: int = 1000
    mechanism: str = sasl.SCRAM


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
    """CPU of a login with everything that belongs to it until the stream is closed, on an idle server.

    The accounts log in once before, which is reported apart (`first_...`): servers remember a password that
    was right, or store it anew.

    Raises:
        SessionError, LoadTimeoutError, ServerError: as for chat().
    """
    loop = Loop()
    try:
        crowd = Crowd(loop, server.endpoint(tls=tls), mechanism=load.mechanism, management=False)
        regulars = min(_REGULARS, load.accounts, load.logins)
        first = _logins(server, crowd, regulars, regulars, load)
        usual = _logins(server, crowd, load.logins, regulars, load)
        seconds = sorted(crowd.login_seconds)
        extra = {
            "auth_cpu_us": usual.auth / load.logins * 1e6,
            "first_cpu_us": first.server / regulars * 1e6,
            "first_auth_cpu_us": first.auth / regulars * 1e6,
        }
        sample = Sample(
            cpu_us=usual.server / load.logins * 1e6,
            wall_per_s=load.logins / crowd.last_seconds,
            p50_ms=percentile(seconds, 50) * 1e3,
            p99_ms=percentile(seconds, 99) * 1e3,
            extra=extra,
        )
        return {Cell(LOGIN, tls, window=None, sm=False): sample}
    finally:
        loop.close()


def _logins(server: Server, crowd: Crowd, count: int, accounts: int, load: Load) -> CpuTimes:
    before = server.cpu()
    crowd.come_and_go((account(number % accounts, load.accounts) for number in range(count)), _LOGIN_TIMEOUT)
    return server.cpu().since(before)


def idle(server: Server, load: Load, *, tls: bool) -> dict[Cell, Sample]:
    """Memory of a session that is logged in and does nothing, on a freshly started server.

    Raises:
        SessionError, LoadTimeoutError, ServerError: as for chat().
    """
    loop = Loop()
    try:
        crowd = Crowd(loop, server.endpoint(tls=tls), mechanism=load.mechanism, management=False)
        regulars = min(_REGULARS, load.accounts)
        # What the first logins load and cache once and for all is not memory of a session.
        crowd.come_and_go((account(number, load.accounts) for number in range(regulars)), _LOGIN_TIMEOUT)
        before = _settled_memory(server, loop)
        crowd.log_in((account(number, load.accounts) for number in range(load.sessions)), _LOGIN_TIMEOUT)
        after = _settled_memory(server, loop)
        crowd.check()
        sample = Sample(
            kib=(after - before) / load.sessions,
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
        if abs(now - memory) <= _SETTLED_SHARE * memory and waited >= 3.0:
            return now
        memory = now
    return memory


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the sorted values lie (nearest rank)."""
    rank = max(0, min(len(ordered) - 1, round(percent / 100 * len(ordered) + 0.5) - 1))
    return ordered[rank]
