"""The history in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
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


class KeyTaken(Exception):
    """An idempotency key belongs to another job."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.task_id)
        self.job = job


class DatabaseUnavailable(OSError):
    """The database cannot be used at the moment; nothing was changed."""


@contextlib.asynccontextmanager
async def _using(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """A session. asyncpg, SQLAlchemy and the network each have their own words for an outage: here it gets one."""
    try:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            yield session
    except (DataError, IntegrityError):
        raise
    except (DBAPIError, PoolTimeout, asyncpg.PostgresError, OSError) as error:
        raise DatabaseUnavailable(str(error)) from error


class Jobs:
    """The accepted tasks. Each method raises `DatabaseUnavailable` when the database is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, job: Job) -> None:
        """Commit a job before it is published. Raises `KeyTaken` if its idempotency key is another job's."""
        key = job.idempotency_key
        try:
            async with _using(self._engine) as session:
                session.add(job)
                await session.commit()
        except IntegrityError:
            taken = await self.find(key) if key is not None else None
            if taken is None:
                raise
            raise KeyTaken(taken) from None

    async def find(self, key: str) -> Job | None:
        """The job that was submitted with an idempotency key."""
        async with _using(self._engine) as session:
            return (await session.exec(select(Job).where(Job.idempotency_key == key))).first()

    async def remove(self, task_id: str) -> None:
        """Take back a task that could not be published."""
        async with _using(self._engine) as session:
            await session.exec(delete(Job).where(col(Job.task_id) == task_id))
            await session.commit()

    async def recent(self, limit: int) -> list[Job]:
        """The newest jobs first."""
        newest = select(Job).order_by(col(Job.created_at).desc(), col(Job.task_id).desc()).limit(limit)
        async with _using(self._engine) as session:
            return list((await session.exec(newest)).all())

    async def ping(self) -> None:
        """Raise `DatabaseUnavailable` unless the database answers."""
        async with _using(self._engine) as session:
            await (await session.connection()).execute(text("SELECT 1"))
