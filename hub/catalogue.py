"""The catalogue as the hub uses it: which tasks may be submitted, and whether arguments are what a task takes."""

from __future__ import annotations

import itertools
import re
import time
from typing import Any

import anyio.to_thread
import msgspec
import structlog
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from headway.events import encode
from headway.storage import Storage, UnknownRef
from hub.problems import Problem

log = structlog.get_logger()

SERVED = 60.0
"""Seconds for which an announcement counts; workers repeat theirs every 15."""
MAX_ERRORS = 20
"""Wrong arguments that one answer lists."""

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""NUL in JSON text, which PostgreSQL does not take."""


class Entry(msgspec.Struct, frozen=True):
    """A task that may be submitted."""

    task: str
    description: str
    queue: str
    schema: dict[str, Any]
    served: bool = True
    """Whether a worker has announced it lately. A task that none serves may be submitted, and waits for one."""


def parse(entries: dict[str, bytes], announced: dict[str, float]) -> list[Entry]:
    """What the workers have announced, by name; `announced` says when (Unix seconds)."""
    recently = time.time() - SERVED
    found = (_entry(name, entries[name]) for name in sorted(entries))
    return [
        msgspec.structs.replace(entry, served=announced.get(entry.task, 0.0) > recently) for entry in found if entry
    ]


def find(entries: dict[str, bytes], task: str) -> Entry:
    """The entry of a task; a `Problem` that names the ones there are."""
    entry = _entry(task, entries[task]) if task in entries else None
    if entry is None:
        known = ", ".join(sorted(entries)) or "none, as no worker has announced any yet"
        raise Problem(422, f"There is no task {task[:100]!r} to submit. The catalogue has: {known}.", field="task")
    return entry


def _entry(name: str, data: bytes) -> Entry | None:
    """An entry; None if its worker speaks another dialect, which must not hide the other workers' tasks."""
    try:
        return msgspec.json.decode(data, type=Entry)
    except msgspec.DecodeError as error:
        log.warning("a catalogue entry is ignored", task=name, error=str(error))
        return None


def check(entry: Entry, args: dict[str, Any]) -> None:
    """Validate arguments against the task's schema; a `Problem` says of each wrong one which and why."""
    found = itertools.islice(Draft202012Validator(entry.schema).iter_errors(args), MAX_ERRORS)
    errors = [{"field": _field(error), "reason": error.message[:300]} for error in found]
    if _NUL.search(encode(args)):
        errors.append({"field": "args", "reason": "text must not contain the NUL character"})
    if errors:
        first = errors[0]
        detail = f"The arguments do not fit {entry.task}: {first['field']}: {first['reason']}."
        raise Problem(422, detail, field=first["field"], errors=errors)


def _field(error: ValidationError) -> str:
    """The dotted name of the argument that an error is about, also of one that is missing."""
    path = ["args", *map(str, error.absolute_path)]
    if error.validator == "required":
        required: Any = error.validator_value
        path += [name for name in required if error.message.startswith(repr(name))][:1]
    return ".".join(path)


async def check_files(entry: Entry, args: dict[str, Any], storage: Storage) -> None:
    """Whether every ref among the arguments has a file, so that a wrong one is told now and not by the worker."""
    for name, schema in entry.schema.get("properties", {}).items():
        ref = args.get(name)
        if schema.get("format") == "upload-ref" and isinstance(ref, str):
            try:
                await anyio.to_thread.run_sync(storage.path, ref)
            except UnknownRef as error:
                field = f"args.{name}"
                reason = str(error)
                raise Problem(
                    422, f"{field}: {reason}", field=field, errors=[{"field": field, "reason": reason}]
                ) from None
