"""Sentences about what is in the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy import checks
from deploy.launch import launched
from deploy.programs import ROOT
from deploy.server import ServerError
from deploy.valkey import Valkey

# The first port that an ordinary user may listen on.
PORT_RULE = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
PRIVILEGED = int(PORT_RULE.read_text()) if PORT_RULE.exists() else 0


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("postgresql://me:se@cret@host/db?password=secret", "postgresql://me:***@host/db"),
        ("redis://host", "redis://host"),
        ("amqp://me@host//", "amqp://me@host//"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_shown_address_has_no_password(url: str, shown: str) -> None:
    """Whatever the address looks like."""
    assert checks.without_password(url) == shown


def test_servers_that_answer_are_fine(valkey: Valkey, database_url: str) -> None:
    """No sentence, no exception."""
    checks.named_servers(
        {"HEADWAY_REDIS_URL": valkey.url, "CELERY_BROKER_URL": valkey.url, "DATABASE_URL": database_url}
    )


def test_a_wrong_password_is_said_without_the_password(valkey: Valkey) -> None:
    """The address is right and the server refuses."""
    url = valkey.url.replace(valkey.password, "wrong-one")
    with pytest.raises(ServerError, match=r"named by HEADWAY_REDIS_URL \(redis://:\*\*\*@") as caught:
        checks.named_servers({"HEADWAY_REDIS_URL": url})
    assert "wrong-one" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://host/db", "host", "sqlite:///file", "postgresql+asyncpg://host/db"])
def test_a_database_of_another_kind_is_refused(url: str) -> None:
    """Only PostgreSQL will do, and the sentence says so."""
    with pytest.raises(ServerError, match=r"^DATABASE_URL is not a postgresql:// or postgres:// address: "):
        checks.named_servers({"DATABASE_URL": url})


@pytest.mark.parametrize("variable", ["HEADWAY_REDIS_URL", "CELERY_BROKER_URL"])
@pytest.mark.parametrize("scheme", ["http://", "amqp://", "unix://", "redis:", ""])
def test_a_store_or_broker_of_another_kind_is_refused(valkey: Valkey, variable: str, scheme: str) -> None:
    """Although somebody listens there: the hub and Celery could not use it."""
    url = f"{scheme}me:hidden@127.0.0.1:{valkey.port}"
    with pytest.raises(ServerError, match=rf"^{variable} is not a redis:// or rediss:// address: ") as caught:
        checks.named_servers({variable: url})
    assert "hidden" not in str(caught.value)


@pytest.mark.skipif(PRIVILEGED <= 80, reason="every user may listen on every port here")
def test_a_port_that_is_not_allowed_is_not_called_taken() -> None:
    """An ordinary user is told the system's reason."""
    command = [sys.executable, "-c", "from deploy import checks; checks.port(80)"]
    done = subprocess.run(launched(command, unprivileged=True), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (
        "ServerError: port 80 on 127.0.0.1 cannot be listened on (Permission denied): choose another one with PORT=…"
    ) in done.stderr
