"""The uvicorn server of the hub: it says goodbye before it waits for its clients to go."""

from __future__ import annotations

import socket

import uvicorn
from starlette.applications import Starlette

from hub.garbage import Pauses
from hub.services import Services


class Server(uvicorn.Server):
    """Serves one app.

    uvicorn tells its WebSockets, and sse-starlette the event streams, that the end has come. A poll that waits for
    news would be cut off with an error instead: it is answered with what there is.
    """

    def __init__(self, config: uvicorn.Config, app: Starlette, pauses: Pauses | None = None) -> None:
        super().__init__(config)
        self._app = app
        self._pauses = pauses

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services: Services = self._app.state.services
        services.farewell()
        await super().shutdown(sockets)
        if self._pauses is not None:
            self._pauses.tell()  # here, as uvicorn lets the signal that ends it end the process
