"""The form of the tutorials: FastAPI asks Celery's result backend at each request."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from fastapi import FastAPI

celery = Celery("peer", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app = FastAPI()


@app.get("/tasks/{task_id}")
def get_status(task_id: str) -> dict[str, Any]:
    """Where a task stands."""
    result = AsyncResult(task_id, app=celery)
    return {"task_id": task_id, "task_status": result.status, "task_result": result.result}
