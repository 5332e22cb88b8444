"""Headway: real-time progress for Celery tasks."""

from headway.reporter import Progress, track
from headway.store import Superseded

__all__ = ["Progress", "Superseded", "track"]
