"""`python -m hub`: serve. One process; several may share a port through `--fd`, a listening socket they inherit."""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys

import structlog
import uvicorn
from starlette.applications import Starlette

from headway.logs import configure
from hub import garbage
from hub.app import create_app
from hub.server import Server
from hub.settings import SettingsError, load
from hub.wire import WireProtocol

GRACE = 5
"""Seconds that open requests have after SIGTERM."""
MAX_FRAME = 1024 * 1024
"""Bytes of a WebSocket message that are received at all (1009 beyond); hub.websocket has the limit with an answer."""
PING_INTERVAL = 12.0
"""Seconds between pings, and for which an answer may take: a client that reads nothing is gone within 24 s."""
STALLED = 30_000
"""Milliseconds for which sent bytes may stay unacknowledged: a client that reads nothing is given up after that."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = argparse.ArgumentParser("python -m hub", description="Serve the Headway hub.")
    arguments.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    arguments.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    arguments.add_argument("--fd", type=int, help="listen on this inherited socket instead")
    return arguments


def listen(host: str, port: int, fd: int | None) -> socket.socket:
    """The listening socket; `OSError` if it cannot be had."""
    if not 0 <= port <= 65535:
        raise OSError("there are the ports 1 to 65535")
    if fd is not None:
        listening = socket.socket(fileno=fd)
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Connections inherit it. Without it, closing waits for ever to flush what a stalled client does not take.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED)
    return listening


def configuration(app: Starlette) -> uvicorn.Config:
    """How uvicorn serves the app."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ws=WireProtocol,
        ws_ping_interval=PING_INTERVAL,
        ws_ping_timeout=PING_INTERVAL,
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
    )


def main() -> int:
    """Serve until SIGTERM or SIGINT; 1 and one sentence on stderr if that cannot begin."""
    arguments = parser().parse_args()
    try:
        configure("hub")
        settings = load()
        listening = listen(arguments.host, arguments.port, arguments.fd)
        with contextlib.ExitStack() as refused:
            refused.callback(listening.close)
            settings.allow_host(listening.getsockname()[0])
            refused.pop_all()
    except (SettingsError, ValueError) as error:
        print(f"headway: {error}", file=sys.stderr)  # noqa: T201  # a command's answer, not a log line
        return 1
    except OSError as error:
        where = f"{arguments.host}:{arguments.port}" if arguments.fd is None else f"fd {arguments.fd}"
        print(f"headway: cannot listen on {where}: {error.strerror or error}", file=sys.stderr)  # noqa: T201
        return 1
    if settings.auth == "off":
        structlog.get_logger().warning("HEADWAY_AUTH=off: everybody who reaches this hub may watch and submit")
    app = create_app(settings)
    server = Server(configuration(app), app, garbage.tame())
    server.run([listening])
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
