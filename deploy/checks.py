"""What is looked at before anything starts: each failure is one sentence."""

from __future__ import annotations

import errno
import os
from urllib.parse import urlsplit

import psutil
import psycopg
import redis

from deploy.server import ServerError, try_port

TIMEOUT = 3  # seconds a named server has to answer


def port(number: int, variable: str = "PORT") -> None:
    """A server can listen on the port; `variable` is the one that changes it.

    Raises:
        ServerError: somebody listens there (says who, when the system tells), or the system does not allow it.
    """
    try:
        try_port(number)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = f"is in use{_by_whom(number)}" if taken else f"cannot be listened on ({error.strerror})"
        raise ServerError(f"port {number} on 127.0.0.1 {why}: choose another one with {variable}=…") from error


def named_servers(environment: dict[str, str]) -> None:
    """Every server named by a variable is of the right kind and answers.

    Raises:
        ServerError: one is not or does not; names the variable and the address, without the password.
    """
    for variable, (schemes, ask) in KINDS.items():
        if url := environment.get(variable):
            if not url.startswith(schemes):
                wanted = " or ".join(schemes)
                raise ServerError(f"{variable} is not a {wanted} address: {without_password(url)}")
            ask(variable, url)


def _redis(variable: str, url: str) -> None:
    try:
        with redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT) as client:
            client.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        raise _unusable(variable, url, error) from error


def _database(variable: str, url: str) -> None:
    try:
        psycopg.connect(url, connect_timeout=TIMEOUT).close()
    except (psycopg.Error, ValueError) as error:
        raise _unusable(variable, url, error) from error


# How the address begins, and how to ask whether the server is there.
KINDS = {
    "HEADWAY_REDIS_URL": (("redis://", "rediss://"), _redis),
    "CELERY_BROKER_URL": (("redis://", "rediss://"), _redis),
    "DATABASE_URL": (("postgresql://", "postgres://"), _database),
}


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
