"""`python -m hub.migrate`: bring the database to the newest schema. Safe to run from several processes at once."""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from hub.settings import Settings, SettingsError, load

LOCK = 0x68656164
"""Advisory lock that the migrating process holds: the others wait, and find nothing left to do."""


def migrate(settings: Settings) -> None:
    """Run the pending migrations; SQLAlchemy's `OperationalError` if the database cannot be reached."""
    config = Config()
    # A configuration value: a percent sign in the path would be read as an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    engine = create_engine(settings.database("psycopg"), connect_args={"connect_timeout": 10})
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def main() -> int:
    """Migrate the database named by DATABASE_URL; 1 and one sentence on stderr if that cannot be done."""
    try:
        migrate(load())
    except SettingsError as error:
        print(f"headway: {error}", file=sys.stderr)  # noqa: T201  # a command's answer, not a log line
        return 1
    except OperationalError as error:
        reason = " ".join(str(error.orig).split())
        print(f"headway: the database named by DATABASE_URL cannot be used: {reason}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
