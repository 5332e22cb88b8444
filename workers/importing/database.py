"""The connection of one import: it comes back when the database does."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg
import structlog

from headway import Progress
from workers.problems import DatabaseAway, DatabaseRefused, DiskFull

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]
log = structlog.get_logger()

PATIENCE = 60.0  # seconds: longer than a restart or a failover of the database, shorter than a watcher's
BACKOFF = (0.1, 3.0)  # seconds until the next try: at first, and at most
PASSING = (
    "08",
    "57P",
    "40",
)  # connection, shutdown and start-up, deadlock: classes of SQLSTATE that go away by themselves
PASSING_CODES = {"53300", "25006"}  # too many connections; read-only, which a failover's old primary is for a while
DISK_FULL = "53100"
OPTIONS = {
    "connect_timeout": "5",
    # A half-open connection is noticed in about ten seconds, not in two hours.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "application_name": "headway import_csv",
    "client_encoding": "utf8",
}


class Database:
    """Runs transactions, each again until it went through or `patience` seconds have passed."""

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        """`url` is postgresql://user:password@host:port/name; nothing is connected yet."""
        self._url = url
        self._patience = patience
        self._connection: Connection | None = None

    def run(self, work: Callable[[Connection], T]) -> T:
        """Call `work` inside a transaction and return what it returns.

        `work` is called again when the connection broke, also when it broke during the commit and nobody knows whether
        that went through: it must look before it writes. Raises DatabaseAway, DatabaseRefused or DiskFull, and what
        Progress does.
        """
        deadline, pause = time.monotonic() + self._patience, BACKOFF[0]
        while True:
            try:
                connection = self._connected()
                with connection.transaction():
                    return work(connection)
            except psycopg.Error as error:
                broken = self._connection is None or self._connection.closed
                if not broken and not _passing(error.sqlstate):
                    raise _refusal(error) from error
                self.close()
                if time.monotonic() + pause > deadline:
                    raise DatabaseAway(f"The database has been away for {self._patience:.0f} seconds.") from error
                log.warning("database is away", error=str(error).strip(), retry_in=pause)
                if pause == BACKOFF[0]:
                    Progress().log("the database is away: waiting for it", level="warning")
            time.sleep(pause)
            pause = min(pause * 2, BACKOFF[1])

    def close(self) -> None:
        """Close the connection; run() opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = psycopg.connect(self._url, autocommit=True, **OPTIONS)  # type: ignore[arg-type]  # a connect argument for libpq
            # The same file must mean the same on every server: no local order of day and month, no local time.
            self._connection.execute("SET datestyle = 'ISO, YMD'")
            self._connection.execute("SET timezone = 'UTC'")
        return self._connection


def _passing(sqlstate: str | None) -> bool:
    return sqlstate is not None and (sqlstate.startswith(PASSING) or sqlstate in PASSING_CODES)


def _refusal(error: psycopg.Error) -> Exception:
    if error.sqlstate == DISK_FULL:
        return DiskFull("The database has no room left on its disk.")
    return DatabaseRefused(f"The database refused: {error.diag.message_primary or error}")
