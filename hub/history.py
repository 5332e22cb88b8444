"""The history in PostgreSQL."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from hub.models import Job
from hub.settings import Settings

TIMEOUT = 5.0
"""Seconds for a connection or a statement."""


def engine(settings: Settings) -> AsyncEngine:
    """The pool of connections of this process; dispose of it at the end."""
    return create_async_engine(
        settings.database("asyncpg"),
        pool_size=8,
        max_overflow=0,
        pool_timeout=TIMEOUT,
        pool_pre_ping=True,
        connect_args={"timeout": TIMEOUT, "command_timeout": TIMEOUT},
    )


class Jobs:
    """The accepted tasks."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, task_id: str, task: str, args: dict[str, Any], queue: str, created_at: float) -> None:
        """Commit a task's row, before the task is published. `created_at` is in Unix seconds."""
        created = datetime.datetime.fromtimestamp(created_at, datetime.UTC)
        async with AsyncSession(self._engine) as session:
            session.add(Job(task_id=task_id, task=task, args=args, queue=queue, created_at=created))
            await session.commit()

    async def remove(self, task_id: str) -> None:
        """Take back a task that could not be published."""
        async with AsyncSession(self._engine) as session:
            await session.exec(delete(Job).where(col(Job.task_id) == task_id))
            await session.commit()

    async def recent(self, limit: int) -> list[Job]:
        """The newest jobs first."""
        newest = select(Job).order_by(col(Job.created_at).desc(), col(Job.task_id).desc()).limit(limit)
        async with AsyncSession(self._engine) as session:
            return list((await session.exec(newest)).all())

    async def ping(self) -> None:
        """Raise unless the database answers."""
        async with self._engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
