"""The tables of the history."""

import datetime
from typing import Any

from sqlalchemy import Column, DateTime, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel


class Job(SQLModel, table=True):
    """A task that was accepted: written before it is published, so that it can always be sent again."""

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_newest", text("created_at DESC"), text("task_id DESC")),)

    task_id: str = Field(primary_key=True)
    task: str
    args: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    queue: str
    created_at: datetime.datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    idempotency_key: str | None = Field(default=None, unique=True)
    submission_digest: str
    """Of the task and its arguments: tells whether a key is used for the same submission again."""
