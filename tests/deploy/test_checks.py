"""Sentences about what is in the way."""

from __future__ import annotations

import pytest

from deploy import checks
from deploy.server import ServerError
from deploy.valkey import Valkey


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


@pytest.mark.parametrize("url", ["mysql://host/db", "host", "sqlite:///file"])
def test_a_database_of_another_kind_is_refused(url: str) -> None:
    """Only PostgreSQL will do, and the sentence says so."""
    with pytest.raises(ServerError, match="DATABASE_URL is not a postgresql:// address"):
        checks.named_servers({"DATABASE_URL": url})


@pytest.mark.parametrize("url", ["host", "amqp://", "amqp://127.0.0.1:1"])
def test_a_broker_that_is_not_redis_has_to_listen(url: str) -> None:
    """An address that is none is caught here as well."""
    with pytest.raises(ServerError, match="named by CELERY_BROKER_URL"):
        checks.named_servers({"CELERY_BROKER_URL": url})
