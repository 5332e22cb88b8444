"""How far an import is, kept in the same transaction as the rows: killed at any moment, it goes on where it was.

A run takes the ledger's row over by writing its own `owner` into it. Every later write of another run finds that it
is not the owner any more and raises Superseded, so two runs that overlap can neither double nor lose a row.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from headway import Superseded
from workers.importing import copying
from workers.importing.batch import Batch, Position, Reject
from workers.importing.columns import SQL_TYPES, Column
from workers.importing.database import Connection, Database
from workers.problems import TableExists


class Plan(Struct, frozen=True):
    """What the inspection decided, once for all runs of the task."""

    table: str
    encoding: str
    lines: int
    delimiter: str
    columns: list[Column]


class Entry(Struct):
    """The ledger's row. `result` is set when the import has finished; `seconds` have passed since it began."""

    plan: Plan
    position: Position
    rows: int = 0
    rejected: int = 0
    rejects_ref: str | None = None
    result: dict[str, Any] | None = None
    seconds: float = 0.0


class Rewound(Exception):
    """The server crashed and took its newest batches back: go on from `entry`."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry)
        self.entry = entry


class Ledger:
    """The ledger's row of one task, as one run of it sees it."""

    def __init__(self, database: Database, task_id: str) -> None:
        self._database = database
        self._task_id = task_id
        self._owner = uuid.uuid4()

    def take_over(self, args: dict[str, Any]) -> Entry | None:
        """Become the owner and return where the last run was; None when there was none, or with other arguments.

        What a run with other arguments left unfinished is removed: its rows are not what is asked for now.
        """

        def work(connection: Connection) -> Entry | None:
            connection.execute("UPDATE imports SET owner = %s WHERE task_id = %s", (self._owner, self._task_id))
            entry = self._entry(connection)
            if entry is None:
                return None
            same = connection.execute(
                "SELECT 1 FROM imports WHERE task_id = %s AND args = %s", (self._task_id, Jsonb(args))
            ).fetchone()
            if same:
                return entry
            self._remove(connection, entry.plan.table)
            return None

        return self._database.run(work)

    def begin(self, args: dict[str, Any], plan: Plan, position: Position) -> Entry:
        """Create the table and the ledger's row. Raises TableExists."""
        types = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(SQL_TYPES[column.type]))
            for column in plan.columns
        )
        create = sql.SQL("CREATE TABLE {} ({})").format(sql.Identifier(copying.SCHEMA, plan.table), types)

        def work(connection: Connection) -> None:
            if self._entry(connection) is not None:
                return  # the commit had gone through when the connection broke
            try:
                connection.execute(create)
            except (errors.DuplicateTable, errors.UniqueViolation):
                raise TableExists(f"There is a table {plan.table!r} already: choose another name.") from None
            connection.execute(
                "INSERT INTO imports (task_id, owner, args, plan, byte_offset, line) VALUES (%s, %s, %s, %s, %s, %s)",
                (
                    self._task_id,
                    self._owner,
                    Jsonb(args),
                    Jsonb(msgspec.to_builtins(plan)),
                    position.offset,
                    position.line,
                ),
            )

        self._database.run(work)
        return Entry(plan, position)

    def load(self, entry: Entry, batch: Batch, room: int) -> tuple[int, list[Reject]]:
        """Load one batch, its rejects and the new position, all or nothing; return the number of rows and the rejects.

        Stops within the batch when more than `room` rows are rejected. Raises Superseded, Rewound, and what
        Database.run raises.
        """
        copy_in = copying.statement(entry.plan.table, [column.name for column in entry.plan.columns])

        def work(connection: Connection) -> tuple[int, list[Reject]]:
            # A crash of the server may take the newest batches back, rows and position alike; finish() waits for all.
            connection.execute("SET LOCAL synchronous_commit = off")
            stored = self._entry(connection)
            if stored is None:
                raise Superseded(f"the import of task {self._task_id} has been removed")
            if stored.position == batch.after:  # the commit had gone through when the connection broke
                return stored.rows - entry.rows, self._rejects_after(connection, batch.before.line)
            if stored.position != batch.before:
                raise Rewound(stored)
            refused = copying.copy(connection, copy_in, batch.rows, room - len(batch.rejects))
            rejects = [*batch.rejects, *(batch.reject(batch.spans[index], reason) for index, reason in refused)]
            rejects.sort(key=lambda reject: reject.line)
            rows = len(batch.rows) - len(refused)
            if rejects:
                self._keep(connection, rejects)
            connection.execute(
                "UPDATE imports SET byte_offset = %s, line = %s, rows = rows + %s, rejected = rejected + %s"
                " WHERE task_id = %s",
                (batch.after.offset, batch.after.line, rows, len(rejects), self._task_id),
            )
            return rows, rejects

        return self._database.run(work)

    def rejects(self) -> Iterator[Reject]:
        """Yield all rejects in file order, a page at a time."""
        line = 0
        while page := self._database.run(lambda connection, after=line: self._rejects_after(connection, after, 1_000)):  # type: ignore[misc]  # the default binds the loop's value
            yield from page
            line = page[-1].line

    def name_rejects(self, ref: str) -> None:
        """Note the rejects file before it appears under its ref: a run after a crash finds it, and makes no second."""
        self._set("rejects_ref", ref)

    def finish(self, result: dict[str, Any]) -> None:
        """Keep the result; from here on another run of the task returns it and does nothing."""

        def work(connection: Connection) -> None:
            self._entry(connection)
            connection.execute("DELETE FROM import_rejects WHERE task_id = %s", (self._task_id,))
            connection.execute(
                "UPDATE imports SET result = %s, finished_at = now() WHERE task_id = %s", (Jsonb(result), self._task_id)
            )

        self._database.run(work)

    def discard(self) -> None:
        """Remove the table and everything the ledger knows: a failed import leaves no half table behind."""

        def work(connection: Connection) -> None:
            entry = self._entry(connection)
            if entry is not None:
                self._remove(connection, entry.plan.table)

        self._database.run(work)

    def _entry(self, connection: Connection) -> Entry | None:
        """Read the row and lock it until the transaction ends. Raises Superseded when another run owns it."""
        row = connection.execute(
            "SELECT owner, plan, byte_offset, line, rows, rejected, rejects_ref, result,"
            " extract(epoch FROM clock_timestamp() - started_at)::float8 FROM imports WHERE task_id = %s FOR UPDATE",
            (self._task_id,),
        ).fetchone()
        if row is None:
            return None
        if row[0] != self._owner:
            raise Superseded(f"another run of the import {self._task_id} has taken over")
        return Entry(msgspec.convert(row[1], Plan), Position(row[2], row[3]), *row[4:])

    def _set(self, column: str, value: str) -> None:
        statement = sql.SQL("UPDATE imports SET {} = %s WHERE task_id = %s").format(sql.Identifier(column))

        def work(connection: Connection) -> None:
            self._entry(connection)
            connection.execute(statement, (value, self._task_id))

        self._database.run(work)

    def _keep(self, connection: Connection, rejects: list[Reject]) -> None:
        rows = [[self._task_id, str(reject.line), reject.reason, reject.raw] for reject in rejects]
        copy_in = "COPY import_rejects (task_id, line, reason, raw) FROM STDIN"
        with connection.cursor() as cursor, cursor.copy(copy_in) as stream:
            stream.write(copying.block(rows))

    def _rejects_after(self, connection: Connection, line: int, limit: int | None = None) -> list[Reject]:
        found = connection.execute(
            "SELECT line, reason, raw FROM import_rejects WHERE task_id = %s AND line > %s ORDER BY line LIMIT %s",
            (self._task_id, line, limit),
        )
        return [Reject(*row) for row in found]

    def _remove(self, connection: Connection, table: str) -> None:
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(copying.SCHEMA, table)))
        connection.execute("DELETE FROM imports WHERE task_id = %s", (self._task_id,))
