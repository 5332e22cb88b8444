"""The polling client, a process of its own: it asks again over each connection as soon as it is answered.

    python -m bench.poller PORT PATH SECONDS [ETAG]

prints the answers a second. With an ETag they must be 304, else 200.
"""

from __future__ import annotations

import select
import socket
import sys
import time

CONNECTIONS = 32
PATIENCE = 20.0
"""Seconds a server has to answer."""


def rate(port: int, path: str, seconds: float, etag: str) -> float:
    """Answers a second over `CONNECTIONS` connections; each must have the status that is expected."""
    condition = f"If-None-Match: {etag}\r\n" if etag else ""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{condition}\r\n".encode()
    status = b"HTTP/1.1 304" if etag else b"HTTP/1.1 200"
    poller = select.epoll()
    sockets = {}
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[connection.fileno()] = connection
        poller.register(connection, select.EPOLLIN)
        connection.sendall(request)
    partial: dict[int, bytes] = dict.fromkeys(sockets, b"")
    answers = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for number, _ in poller.poll(PATIENCE):
            piece = sockets[number].recv(65_536)
            if not piece:
                raise ConnectionError("the server closed a connection")
            partial[number] = data = partial[number] + piece
            if _complete(data):
                if not data.startswith(status):
                    raise ValueError(f"not the answer that was expected: {data[:200]!r}")
                answers += 1
                partial[number] = b""
                sockets[number].sendall(request)
    return answers / (time.perf_counter() - began)


def _complete(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    _, _, length = head.lower().partition(b"content-length:")
    return len(body) >= int(length.partition(b"\r\n")[0] or 0)


if __name__ == "__main__":
    print(rate(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), "".join(sys.argv[4:])))
