"""The Celery app that ships with the hub, and its jobs."""
