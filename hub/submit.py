"""`POST /tasks`: check, commit, publish. What was answered with 202 has a row that says so."""

from __future__ import annotations

import datetime
import hashlib
import re
import time
import uuid
from typing import Any

import msgspec
import redis
import structlog
from starlette.requests import Request
from starlette.responses import Response

from headway.events import encode
from headway.store import Details
from hub import catalogue
from hub.broker import BrokerUnavailable
from hub.catalogue import Entry
from hub.history import KeyTaken
from hub.models import Job
from hub.problems import Problem
from hub.resource import read_resource, retry_after
from hub.responses import Json
from hub.services import Services

UNDER_WAY = 30.0
"""Seconds in which a request may still be on its way from its row to the store."""
REMEMBERED = 12 * 3600.0
"""Seconds for which the store certainly knows every task (`headway.store.Retention.ended` is twice that)."""
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /tasks`."""

    task: str
    args: dict[str, Any] = {}

    @property
    def digest(self) -> str:
        """Equal for submissions that ask for the same, however their JSON was written."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


async def submit(request: Request) -> Response:
    """202 with the task resource. With an `Idempotency-Key`, sending it again answers with the same task."""
    services: Services = request.app.state.services
    key = _key(request)
    submission = _parse(await _body(request, services.settings.max_body))
    if key is not None and (known := await services.jobs.find(key)):
        return await _again(services, known, submission)
    entry = catalogue.find(await services.store.catalogue(), submission.task)
    catalogue.check(entry, submission.args)
    await catalogue.check_files(entry, submission.args, services.storage)
    task_id = str(uuid.uuid4())
    structlog.contextvars.bind_contextvars(task_id=task_id)
    try:
        await _accept(services, task_id, entry, submission, key)
    except KeyTaken as taken:  # by a request that came at the same time
        return await _again(services, taken.job, submission)
    return await _accepted(services, task_id)


async def _accept(services: Services, task_id: str, entry: Entry, submission: Submission, key: str | None) -> None:
    job = Job(
        task_id=task_id,
        task=entry.task,
        args=submission.args,
        queue=entry.queue,
        created_at=datetime.datetime.now(datetime.UTC),
        idempotency_key=key,
        submission_digest=submission.digest,
    )
    await services.jobs.add(job)
    await _publish(services, job)


async def _publish(services: Services, job: Job) -> None:
    """Make an accepted job a task; if that fails, it was not accepted."""
    created = job.created_at.timestamp()
    details: Details = {"task": job.task, "args": encode(job.args), "queue": job.queue, "created_at": created}
    try:
        await services.store.submit(job.task_id, created, details)
        await services.broker.send(job.task, job.task_id, job.args, job.queue)
    except redis.RedisError:
        await services.jobs.remove(job.task_id)
        raise
    except BrokerUnavailable:
        # Whether it took the message is not known: revoked, the task does not run although it may be delivered.
        await services.jobs.remove(job.task_id)
        await services.store.revoke(job.task_id, time.time(), "not accepted: the broker did not answer")
        detail = "The broker cannot be reached at the moment; the task was not accepted."
        raise Problem(503, detail, headers={"Retry-After": "2"}) from None


async def _again(services: Services, job: Job, submission: Submission) -> Response:
    """The answer to a submission whose key has been used."""
    if job.submission_digest != submission.digest:
        detail = "This Idempotency-Key was used for another submission; a new one needs a new key."
        raise Problem(422, detail, field="Idempotency-Key")
    if await services.store.read(job.task_id) is None:
        age = (datetime.datetime.now(datetime.UTC) - job.created_at).total_seconds()
        if age < UNDER_WAY:
            detail = f"The first request with this key, task {job.task_id}, is still on its way in."
            raise Problem(409, detail, headers={"Retry-After": "1"}, task_id=job.task_id)
        if age > REMEMBERED:
            detail = f"This key was used for task {job.task_id}, which ended so long ago that it has been forgotten."
            raise Problem(409, detail, task_id=job.task_id)
        # A hub died between commit and publish. Should both it and this one have sent the task, it runs once.
        await _publish(services, job)
    return await _accepted(services, job.task_id)


async def _accepted(services: Services, task_id: str) -> Response:
    body = await read_resource(services, task_id)
    if body is None:
        raise redis.ConnectionError("the store lost the task that it was told a moment ago")
    return Json(body, 202, {"Location": f"/tasks/{task_id}", "Retry-After": str(retry_after(body["state"]) or 0)})


def _key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise Problem(400, "An Idempotency-Key has 1 to 255 visible ASCII characters.", field="Idempotency-Key")
    return key


async def _body(request: Request, limit: int) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "Send the task as application/json.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            detail = f"The body may have at most {limit:,} bytes; files go to /uploads, and their ref goes here."
            raise Problem(413, detail, limit=limit)
    return bytes(body)


def _parse(body: bytes) -> Submission:
    try:
        return msgspec.json.decode(body, type=Submission)
    except msgspec.ValidationError as error:
        raise Problem(422, f'The body must be {{"task": "<name>", "args": {{…}}}}: {error}.') from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise Problem(400, "The body is nested too deeply.") from None
