"""A CSV file from storage into a PostgreSQL table of its own, in flat memory, with bad rows kept aside."""

import contextlib
import csv
import io
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated, Any

from msgspec import Meta

from headway import Progress
from headway.storage import FileRef, Storage, UnknownRef
from workers import settings
from workers.app import app
from workers.importing.batch import Reject
from workers.importing.columns import ColumnType
from workers.importing.database import Database
from workers.importing.encoding import Text
from workers.importing.inspection import inspect, table_name
from workers.importing.ledger import Entry, Ledger, Rewound
from workers.importing.records import Records
from workers.problems import FULL, DatabaseAway, DiskFull, JobError, TooManyRejects

REJECTS_TOLD = 5
"""Rejects that get a log line each; all of them are in the file."""
INSPECTION = 0.1
"""Share of the bar that the inspection has."""
CHUNK = 256 * 1024
"""Characters of the rejects file that are written at a time."""

TableName = Annotated[str, Meta(pattern="^[a-z_][a-z0-9_]{0,62}$", description="default: from the file's name")]
Types = Annotated[dict[str, ColumnType], Meta(description="types of columns by name; those left out are inferred")]
Delimiter = Annotated[
    str, Meta(min_length=1, max_length=1, pattern=r'^[^"\r\n]$', description="default: found out, of , ; tab and |")
]
Encoding = Annotated[str, Meta(max_length=40, description="for example cp1252; default: found out")]
RejectLimit = Annotated[int, Meta(ge=0, le=1_000_000_000, description="how many bad rows the import bears")]


@app.task(name="import_csv", shared=False, bind=True, catalogue=True, throws=(JobError, UnknownRef))  # type: ignore[untyped-decorator]  # Celery has no annotations
def import_csv(
    self: Any,
    file: FileRef,
    table: TableName | None = None,
    types: Types | None = None,
    delimiter: Delimiter | None = None,
    encoding: Encoding | None = None,
    reject_limit: RejectLimit = 1000,
) -> dict[str, Any]:
    """Import a CSV file into a PostgreSQL table of its own, in the schema imports.

    The first record names the columns; an empty field is NULL. Rows that do not fit are kept, with line number and
    reason, in a file to download, and the import fails only when there are more of them than `reject_limit`. Killed and
    run again under the same task id, it goes on where it was. Raises JobError, UnknownRef or Superseded.
    """
    task_id = self.request.id or str(uuid.uuid4())
    args = {"file": file, "table": table, "types": types, "delimiter": delimiter, "encoding": encoding}
    with Database(settings.database_url()) as database:
        job = _Import(task_id, args, reject_limit, settings.storage(), Ledger(database, task_id))
        return job.run()


@dataclass
class _Import:
    """One run of an import."""

    task_id: str
    args: dict[str, Any]
    limit: int
    storage: Storage
    ledger: Ledger
    progress: Progress = field(default_factory=lambda: Progress(unit="rows"))
    began: float = field(default_factory=time.monotonic)

    def run(self) -> dict[str, Any]:
        entry = self.ledger.take_over({**self.args, "reject_limit": self.limit})
        if entry is not None and entry.result is not None:
            return entry.result
        with self._nothing_left_behind():
            path = self.storage.path(self.args["file"])
            if entry is None:
                entry = self._inspect(path)
            else:
                with self.progress.stage("inspect", weight=INSPECTION):
                    pass  # done by the attempt before: the bar goes on where it was
                self.progress.log(f"going on after line {entry.position.line:,}, with {entry.rows:,} rows imported")
            entry = self._load(path, entry)
            return self._finish(entry)

    def _inspect(self, path: Path) -> Entry:
        args = self.args
        table = args["table"] or table_name(self.storage.name(args["file"]), self.task_id)
        self.progress.set(message="inspecting the file")
        with self.progress.stage("inspect", weight=INSPECTION, total=path.stat().st_size, unit="bytes") as stage:
            plan, start, notes = inspect(
                path,
                table,
                types=args["types"] or {},
                delimiter=args["delimiter"],
                encoding=args["encoding"],
                tick=stage.set,
            )
        for note in notes[:REJECTS_TOLD]:
            self.progress.log(note, level="warning")
        columns = ", ".join(f"{column.name} {column.type}" for column in plan.columns)
        self.progress.log(
            f"{plan.encoding}, delimiter {plan.delimiter!r}, {len(plan.columns)} columns: {columns}"[:2000]
        )
        return self.ledger.begin({**args, "reject_limit": self.limit}, plan, start)

    def _load(self, path: Path, entry: Entry) -> Entry:
        self.progress.set(message=f"importing into {entry.plan.table}")
        with self.progress.stage("import", total=_most(entry), unit="rows") as stage:
            while True:
                try:
                    self._load_from(path, entry, stage)
                except Rewound as rewound:
                    entry = rewound.entry
                    self.began = time.monotonic()  # the entry has the seconds up to where it was rewound to
                    self.progress.log("the database lost its newest rows: importing them again", level="warning")
                else:
                    return entry

    def _load_from(self, path: Path, entry: Entry, stage: Progress) -> None:
        """Load batch after batch from where the entry says; keeps the entry up to date."""
        plan = entry.plan
        with path.open("rb") as file:
            text = Text(plan.encoding, lines=plan.lines)
            for batch in Records(file, text, plan.delimiter, len(plan.columns), entry.position).batches():
                self._count(entry, stage)
                rows, rejects = self.ledger.load(entry, batch, self.limit - entry.rejected)
                self._tell(rejects, entry.rejected)
                entry.position = batch.after
                entry.rows += rows
                entry.rejected += len(rejects)
        self._count(entry, stage)

    def _count(self, entry: Entry, stage: Progress) -> None:
        """Report how far it is, and end it when too many rows were rejected."""
        stage.set(current=entry.rows + entry.rejected, total=_most(entry))
        if entry.rejected > self.limit:
            link = self._rejects(entry)
            first = next(self.ledger.rejects())
            raise TooManyRejects(
                f"More than {self.limit:,} rows were rejected, the first in line {first.line:,} ({first.reason});"
                f" all of them are in {link['href'] if link else 'no file'}."
            )

    def _tell(self, rejects: list[Reject], before: int) -> None:
        for reject in rejects[: max(0, REJECTS_TOLD - before)]:
            self.progress.log(f"line {reject.line:,} is rejected: {reject.reason}", level="warning")

    def _finish(self, entry: Entry) -> dict[str, Any]:
        result = {
            "table": f"imports.{entry.plan.table}",
            "rows": entry.rows,
            "rejected": entry.rejected,
            "columns": [{"name": column.name, "type": column.type} for column in entry.plan.columns],
            "rejects": self._rejects(entry),
            "seconds": round(entry.seconds + time.monotonic() - self.began, 3),
        }
        self.ledger.finish(result)
        total = entry.rows + entry.rejected
        self.progress.set(current=total, total=total, message=f"{entry.rows:,} rows in {result['table']}")
        return result

    def _rejects(self, entry: Entry) -> dict[str, Any] | None:
        """Write the file of the rejects, once over all runs of the task, and return its link."""
        if not entry.rejected:
            return None
        if entry.rejects_ref is not None:
            with contextlib.suppress(UnknownRef):
                return self.storage.link(entry.rejects_ref)
        stem = PurePath(self.storage.name(self.args["file"])).stem
        with self.storage.create(f"{stem}-rejects.csv") as out:
            for chunk in _csv_chunks(self.ledger.rejects()):
                out.write(chunk)
            self.ledger.name_rejects(out.ref)
        return self.storage.link(out.ref)

    @contextlib.contextmanager
    def _nothing_left_behind(self) -> Iterator[None]:
        """Remove the table of an import that has failed. One that was interrupted keeps it, and goes on with it."""
        try:
            yield
        except DatabaseAway:
            raise
        except (JobError, UnknownRef):
            with contextlib.suppress(JobError):
                self.ledger.discard()
            raise
        except OSError as error:
            if error.errno not in FULL:
                raise
            with contextlib.suppress(JobError):
                self.ledger.discard()
            raise DiskFull("There is no room left for the file of the rejected rows.") from error


def _csv_chunks(rejects: Iterator[Reject]) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(("line", "reason", "raw"))
    for reject in rejects:
        writer.writerow((reject.line, reject.reason, reject.raw))
        if buffer.tell() > CHUNK:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _most(entry: Entry) -> int:
    """How many rows it can be at most: blank lines and line ends inside quotes make it fewer as the work goes on.

    It never grows, and at the end it is exact.
    """
    return entry.rows + entry.rejected + max(0, entry.plan.lines - entry.position.line)
