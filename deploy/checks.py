"""What is looked at before anything starts: each failure is one sentence."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

import psutil
import psycopg
import redis

from deploy.server import ServerError, port_is_free

TIMEOUT = 3  # seconds a named server has to answer


def port(number: int, variable: str = "PORT") -> None:
    """The port is free; `variable` is the one that changes it.

    Raises:
        ServerError: somebody listens there; says who, when the system tells.
    """
    if not port_is_free(number):
        raise ServerError(
            f"port {number} on 127.0.0.1 is in use{_by_whom(number)}: choose another one with {variable}=…"
        )


def named_servers(environment: dict[str, str]) -> None:
    """Every server named by a variable answers.

    Raises:
        ServerError: one does not; names the variable and the address, without the password.
    """
    for variable in ("HEADWAY_REDIS_URL", "CELERY_BROKER_URL"):
        if url := environment.get(variable):
            _redis(variable, url) if url.startswith(("redis:", "rediss:", "unix:")) else _socket(variable, url)
    if url := environment.get("DATABASE_URL"):
        _database(url)


def _redis(variable: str, url: str) -> None:
    try:
        with redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT) as client:
            client.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        raise _unusable(variable, url, error) from error


def _socket(variable: str, url: str) -> None:
    """A broker that is not Redis: somebody listens. The rest is Celery's to say."""
    try:
        parts = urlsplit(url)
        if not parts.scheme or not parts.hostname:
            raise ValueError("it is not an address")  # one sentence for all ways to be wrong
        socket.create_connection((parts.hostname, parts.port or 5672), TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise _unusable(variable, url, error) from error


def _database(url: str) -> None:
    if not url.startswith(("postgresql://", "postgres://")):
        raise ServerError(f"DATABASE_URL is not a postgresql:// address: {without_password(url)}")
    try:
        psycopg.connect(url, connect_timeout=TIMEOUT).close()
    except (psycopg.Error, ValueError) as error:
        raise _unusable("DATABASE_URL", url, error) from error


def _unusable(variable: str, url: str, error: Exception) -> ServerError:
    reason = " ".join(str(error).split()) or type(error).__name__
    password = urlsplit(url).password if "://" in url else None
    if password:
        reason = reason.replace(password, "***")
    return ServerError(f"the server named by {variable} ({without_password(url)}) cannot be used: {reason}")


def without_password(url: str) -> str:
    """`url` as it may be shown: `***` for the password, nothing after a question mark."""
    head, at, tail = url.partition("?")[0].rpartition("@")
    scheme, slashes, user = head.partition("://")
    if not at or not slashes:
        return tail
    return f"{scheme}://{user.partition(':')[0]}{':***' if ':' in user else ''}@{tail}"


def _by_whom(number: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listens and listens.port == number and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        pass  # only some systems tell, and not about everybody's processes
    return ""


def environment() -> dict[str, str]:
    """The environment, without variables that are set to nothing."""
    return {key: value for key, value in os.environ.items() if value}
