"""Result backends that publish: every backend of Celery, with `Publishing` in front.

The backend and not the signals: it alone sees every end of a task, also the ones that the worker's main process
declares (hard time limits, lost children, revoked and unknown tasks) and the ones stored for other ids (failed chains).
The store decides first: when it refuses an end, because the task has ended or another attempt runs, Celery's result
stays as it is too.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from celery import states
from celery.app.backends import BACKEND_ALIASES
from celery.backends.base import DisabledBackend
from celery.utils.imports import symbol_by_name
from msgspec import UNSET

from headway import run as runs
from headway.celery import integration
from headway.events import Extra, Failure, Report, State, encode, spoken
from headway.store import Refused

MAX_RESULT = 64 * 1024
"""Bytes of a result that is carried inside the event; a larger one is referenced."""
_ENDED = frozenset({states.SUCCESS, states.FAILURE, states.REVOKED})
_PASSED = frozenset({states.STARTED, states.RETRY, states.PENDING, states.RECEIVED})
_FRAME = re.compile(r'File "(?:.*[/\\])?([^"/\\]+)", line \d+, in (\S+)')
_BOUND = frozenset({"current", "total", "message", "unit"})
_SIMPLE = (type(None), bool, int, float, str)


def failure(exc: BaseException | None, traceback: str | None) -> Failure:
    """What an event tells of an exception; the fingerprint is of its type and of the frames' files and functions."""
    kind = type(exc).__qualname__
    frames = ["/".join(frame) for frame in _FRAME.findall(traceback or "")]
    digest = hashlib.sha256("\n".join([kind, *frames]).encode()).hexdigest()
    return Failure(kind, spoken(exc)[: runs.MAX_MESSAGE], digest[:16])


def result_member(task_id: str, result: Any) -> msgspec.Raw:
    """A result as JSON, or where to fetch it when it is larger than an event should be."""
    data = encode(result)
    if len(data) > MAX_RESULT:
        data = encode({"href": f"/tasks/{task_id}/result", "size": len(data)})
    return msgspec.Raw(data)


class Publishing:
    """Mixed in front of a backend of Celery. Everything it does not name works as before."""

    app: Any
    encode: Callable[[Any], Any]
    encode_result: Callable[[Any, str], Any]
    _local = threading.local()

    def mark_as_done(
        self, task_id: str, result: Any, request: Any = None, store_result: bool = True, state: str = states.SUCCESS
    ) -> None:
        if store_result and not isinstance(result, _SIMPLE) and not isinstance(self, DisabledBackend):
            # Raises EncodeError, of which Celery makes a FAILURE: before watchers have been told of a success.
            self.encode({"result": self.encode_result(result, state)})
        extra = Extra(result=result_member(task_id, result))
        if self._end(task_id, state, extra, request):
            with self._marking(task_id):
                super().mark_as_done(task_id, result, request, store_result, state)  # type: ignore[misc]

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        if self._end(task_id, state, Extra(error=failure(exc, traceback)), request):
            with self._marking(task_id):
                super().mark_as_failure(  # type: ignore[misc]
                    task_id, exc, traceback, request, store_result, call_errbacks, state
                )

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        error = Failure("TaskRevokedError", str(reason), "")
        if self._end(task_id, state, Extra(error=error, reason=str(reason)), request):
            with self._marking(task_id):
                super().mark_as_revoked(task_id, reason, request, store_result, state)  # type: ignore[misc]

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if state in _ENDED and getattr(self._local, "task_id", None) != task_id:
            # Stored directly, for another task than the one that has just ended: a chain's next steps.
            extra = (
                Extra(result=result_member(task_id, result))
                if state == states.SUCCESS
                else Extra(error=failure(result, traceback))
            )
            if not self._end(task_id, state, extra, request):
                return result
        elif state not in _ENDED and state not in _PASSED:
            self._progress(task_id, state, result)
        return super().store_result(task_id, result, state, traceback, request, **kwargs)  # type: ignore[misc]

    def _end(self, task_id: str, state: str, extra: Extra, request: Any) -> bool:
        """Publish the end of a task; False if the store refuses it."""
        headway = integration.of(self.app)
        if headway is None or getattr(request, "is_eager", False):
            return True
        run = runs.end(task_id)
        attempt, patience = (run.attempt, integration.PATIENCE) if run else ("", integration.BYSTANDER_PATIENCE)
        try:
            words = run.last_words() if run else []
            amount, percent, message = run.final() if run else (UNSET, UNSET, UNSET)
            report = Report(
                type="state",
                state=State(state),
                ts=time.time(),
                amount=amount,
                percent=percent,
                message=message,
                extra=extra,
            )
            headway.deliver(task_id, attempt, [*words, (report, uuid.uuid4().hex)], patience)
        except Refused:
            return False
        return True

    def _progress(self, task_id: str, state: str, meta: Any) -> None:
        """`update_state()` with a state of the task's own: its meta, where it speaks our words, is progress."""
        run = runs.sampler.find(task_id)
        if run is None or not isinstance(meta, dict):
            return
        stage = run.root.innermost
        for name in _BOUND & meta.keys():
            value = meta[name]
            if name == "message":
                run.message = str(value)[: runs.MAX_MESSAGE]
            elif name == "unit":
                stage.unit = str(value)
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                setattr(stage, name, value)
        if "message" not in meta and state != "PROGRESS":
            run.message = state

    @contextlib.contextmanager
    def _marking(self, task_id: str) -> Iterator[None]:
        before = getattr(self._local, "task_id", None)
        self._local.task_id = task_id
        try:
            yield
        finally:
            self._local.task_id = before


def __getattr__(alias: str) -> type:
    """The publishing twin of a backend, by Celery's alias of it (`redis`, `database`, `disabled`, …)."""
    if alias not in BACKEND_ALIASES:
        raise AttributeError(f"module {__name__!r} has no attribute {alias!r}")
    original = symbol_by_name(BACKEND_ALIASES[alias])
    twin = type(original.__name__, (Publishing, original), {"__module__": __name__, "__doc__": original.__doc__})
    globals()[alias] = twin
    return twin
