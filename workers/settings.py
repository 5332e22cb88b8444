"""What the jobs take from the environment."""

from __future__ import annotations

import os
from pathlib import Path

from headway.storage import Storage
from workers.problems import JobError


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise JobError(f"This worker has no {name} in its environment.")
    return value


def database_url() -> str:
    """Return the address of the PostgreSQL database, `postgresql://…`. Raises JobError when it is not configured."""
    return _required("DATABASE_URL")


def storage() -> Storage:
    """Return the shared folder of uploads and results. Raises JobError when it is not configured."""
    return Storage(_required("HEADWAY_STORAGE"))


def hash_roots() -> list[Path]:
    """Return the folders that hash_tree may read, resolved; none when HEADWAY_HASH_ROOTS is not set."""
    return [Path(root).resolve() for root in os.environ.get("HEADWAY_HASH_ROOTS", "").split(os.pathsep) if root]
