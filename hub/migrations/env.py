"""Alembic's entry: run by `python -m hub.migrate`, which hands the connection over."""

from alembic import context
from sqlmodel import SQLModel

from hub import models

assert models.Job.metadata is SQLModel.metadata  # noqa: S101  # importing the models fills the metadata
context.configure(connection=context.config.attributes["connection"], target_metadata=SQLModel.metadata)
with context.begin_transaction():
    context.run_migrations()
