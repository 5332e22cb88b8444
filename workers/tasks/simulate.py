"""A job that does nothing but take time and fail on demand, for trying things out."""

import time
from typing import Annotated, Any

from msgspec import Meta

from headway import track
from workers.app import app
from workers.problems import BadArgument, SimulatedFailure

PAUSE = 1.0
"""Seconds until the retry of a simulated failure."""


@app.task(name="simulate", shared=False, bind=True, catalogue=True, throws=(SimulatedFailure, BadArgument))  # type: ignore[untyped-decorator]  # Celery has no annotations
def simulate(
    self: Any,
    steps: Annotated[int, Meta(ge=1, le=1_000_000, description="how many steps the job has")],
    seconds: Annotated[float, Meta(ge=0, le=86_400, description="how long it takes, in seconds")],
    fail_at: Annotated[int, Meta(ge=1, description="the step that fails")] | None = None,
    fail_times: Annotated[int, Meta(ge=1, le=100, description="how many attempts fail before one works; default: all")]
    | None = None,
    message: Annotated[str, Meta(max_length=1000, description="shown beside the bar")] | None = None,
) -> dict[str, Any]:
    """Run a number of steps over a time, for trying things out.

    With `fail_at` that step fails; with `fail_times` too, the job is retried until it works. Raises SimulatedFailure.
    """
    if fail_at is not None and fail_at > steps:
        raise BadArgument(f"Step {fail_at:,} cannot fail: there are {steps:,} steps.")
    started = time.monotonic()
    for step in track(range(1, steps + 1), unit="steps", message=message):
        time.sleep(max(0.0, started + seconds * step / steps - time.monotonic()))
        if step == fail_at:
            _fail(self, step, fail_times)
    return {"steps": steps, "seconds": round(time.monotonic() - started, 3)}


def _fail(task: Any, step: int, times: int | None) -> None:
    retries = task.request.retries
    failure = SimulatedFailure(f"Step {step:,} failed, as asked.")
    if times is None:
        raise failure
    if retries < times:
        raise task.retry(exc=failure, countdown=PAUSE, max_retries=times)
