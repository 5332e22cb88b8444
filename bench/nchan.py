"""nginx with the Nchan module, one worker process: messages in its memory, or with Redis behind it."""

from __future__ import annotations

import http.client
import os
import pwd
import resource
import shutil
import time
from pathlib import Path

from bench import accounting, feed
from bench.feed import Encode, HttpLane, Publisher
from bench.servers import PeerError, Server, Stage
from deploy.server import free_port

MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")
LANES = 8
"""Connections of the publisher: on one, nginx would answer its requests one after the other."""

CONFIGURATION = """\
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
{user}
events {{ worker_connections {files}; multi_accept on; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  nchan_shared_memory_size 256M;
  {upstream}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    keepalive_requests 1000000000;
    location ~ ^/ws/(.+)$ {{
      nchan_subscriber websocket;
      nchan_channel_id $1;
      nchan_subscriber_first_message newest;
      {store}
    }}
    location ~ ^/pub/(.+)$ {{
      nchan_publisher http;
      nchan_channel_id $1;
      {store}
    }}
  }}
}}
"""


def posted(names: str) -> Encode:
    """The request that publishes an event."""

    def request(task: int, number: int, ts: float) -> bytes:
        task_id = (names % task).encode()
        body = feed.event(task_id, number, ts)
        return b"POST /pub/%b HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%b" % (task_id, len(body), body)

    return request


class NchanMemory(Server):
    """Nchan on its own."""

    name = "nchan_memory"
    events_per_second = 5_000

    def missing(self) -> str:
        """See `Server.missing`."""
        if shutil.which("nginx") is None or self._module() is None:
            return "install nginx and its Nchan module (Debian: apt-get install nginx libnginx-mod-nchan)"
        return ""

    def start(self, stage: Stage) -> None:
        self.port = free_port()
        folder = stage.folder / self.name
        folder.mkdir(exist_ok=True)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        text = CONFIGURATION.format(
            module=self._module(),
            files=files,
            folder=folder,
            port=self.port,
            # As root, nginx would have its worker run as somebody who cannot enter our folder.
            user=f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else "",
            upstream=self.upstream(stage),
            store=self.store,
        )
        (folder / "nginx.conf").write_text(text)
        os.chmod(folder / "nginx.conf", 0o600)
        self._run(stage, [str(shutil.which("nginx")), "-p", str(folder), "-c", str(folder / "nginx.conf")], {})

        self._published_once()

    def publisher(self, stage: Stage, tasks: int) -> Publisher:
        lanes = [HttpLane(self.port) for _ in range(min(LANES, tasks))]
        return Publisher(lanes, posted(self.names), tasks)

    @property
    def pids(self) -> list[int]:
        """The worker: its master only watches it."""
        workers = accounting.children(super().pids[0])
        if len(workers) != 1:
            raise PeerError(f"nginx has {len(workers)} workers")
        return workers

    store = ""

    def upstream(self, stage: Stage) -> str:
        """Nothing behind it."""
        return ""

    def _published_once(self) -> None:
        """With Redis behind it, it takes requests before it can do anything with them."""
        deadline = time.monotonic() + 10
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("POST", "/pub/probe", b"probe")
            status = connection.getresponse().status
            connection.close()
            if status < 300:
                return
            if time.monotonic() > deadline:
                self.stop()
                raise PeerError(f"{self.name} answers its publisher with {status}")
            time.sleep(0.05)

    def _module(self) -> Path | None:
        found = (Path(folder) / "ngx_nchan_module.so" for folder in MODULES)
        return next((path for path in found if path.exists()), None)


class NchanRedis(NchanMemory):
    """Nchan with Redis behind it, as several nginx servers need it."""

    name = "nchan_redis"
    store = "nchan_redis_pass redis;"

    def upstream(self, stage: Stage) -> str:
        """The Redis server."""
        return f'upstream redis {{ nchan_redis_server "{stage.redis_url}"; }}'
