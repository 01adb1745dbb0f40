"""A program that commits numbered rows without a pause, and knows which ones were acknowledged."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from sqlalchemy import Engine

TABLE = "acknowledged_rows"
_LIMIT = 20_000
_TIME_LIMIT = 600.0


class Writer:
    """Writes while the context lasts, each row in a transaction of its own.

    A row whose commit has failed may be there or not, and is not written again: nobody was told anything about it.

    Args:
        engine: The database, with as many hosts as it has.

    Attributes:
        acknowledged: The numbers that were committed.
        failures: What was raised instead, by the class of the error.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._times: list[float] = []
        self.acknowledged: list[int] = []
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        with self._engine.begin() as connection:
            connection.execute(text(f"drop table if exists {TABLE}"))
            connection.execute(text(f"create table {TABLE} (number integer primary key)"))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Write no more."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the writer hangs"

    def lost(self) -> list[int]:
        """The numbers that were acknowledged and are not there; ends the writing."""
        self.stop()
        with self._engine.connect() as connection:
            present = {row[0] for row in connection.execute(text(f"select number from {TABLE}"))}  # noqa: S608 - a constant
        return [number for number in self.acknowledged if number not in present]

    def longest_interruption(self) -> float:
        """The longest time between two acknowledged rows."""
        return max(after - before for before, after in zip(self._times, self._times[1:], strict=False))

    def _run(self) -> None:
        end = time.monotonic() + _TIME_LIMIT
        statement = text(f"insert into {TABLE} values (:number)")  # noqa: S608 - a constant
        for number in range(_LIMIT):
            if self._stop.wait(0.01) or time.monotonic() > end:
                return
            try:
                with self._engine.begin() as connection:
                    connection.execute(statement, {"number": number})
            except (DBAPIError, PoolTimeoutError) as error:
                self.failures.append(type(error).__name__)
            else:
                self._times.append(time.monotonic())
                self.acknowledged.append(number)
