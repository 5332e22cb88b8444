"""Under which names, and from the pages of which origins, the hub may be used."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from hub.security import host_allowed, origin_allowed
from hub.settings import Settings


def connection(**headers: str) -> HTTPConnection:
    """A request with these headers."""
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "headers": pairs})


def settings(monkeypatch: pytest.MonkeyPatch, origins: str = "") -> Settings:
    """Settings with a list of origins."""
    monkeypatch.setenv("HEADWAY_ORIGINS", origins)
    return Settings()


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "hub:8000", "hub", "a.localhost:8000", "10.1.2.3", ""]
)
def test_a_name_that_no_stranger_can_give_is_allowed(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Addresses, localhost, and the names of containers."""
    assert host_allowed(connection(host=host), settings(monkeypatch))


@pytest.mark.parametrize("host", ["evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "[::1"])
def test_a_name_that_anybody_can_point_here_is_refused(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """DNS rebinding: the page is of the same origin as the hub then, and would be let in."""
    assert not host_allowed(connection(host=host), settings(monkeypatch))


def test_a_hub_goes_by_the_names_of_its_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    """HEADWAY_ORIGINS, whatever the port."""
    listed = settings(monkeypatch, "https://jobs.example.org, https://other.example/")
    assert host_allowed(connection(host="jobs.example.org"), listed)
    assert host_allowed(connection(host="other.example:8443"), listed)
    assert not host_allowed(connection(host="example.org"), listed)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "https://app.example.org"])
def test_own_and_listed_origins_are_allowed(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """A closing slash in the list does no harm."""
    listed = settings(monkeypatch, "https://app.example.org/")
    assert origin_allowed(connection(host="127.0.0.1:8000", origin=origin), listed)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:9000", "https://evil.example", "null", "http://[", ""])
def test_other_origins_are_refused(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """Another port is another origin."""
    assert not origin_allowed(connection(host="127.0.0.1:8000", origin=origin), settings(monkeypatch))


def test_programs_send_no_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only browsers do, and only they are led astray."""
    assert origin_allowed(connection(host="127.0.0.1:8000"), settings(monkeypatch))
