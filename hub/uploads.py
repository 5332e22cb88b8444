"""Uploads and downloads: the claim check. Files are streamed to storage, and travel through the system as a ref."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import structlog
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response

from headway.storage import UnknownRef, Writing
from hub.problems import Problem
from hub.services import Services

log = structlog.get_logger()

BUFFER = 1024 * 1024
"""Bytes collected before they are written, in one hop to a thread."""
MAX_HEADER = 8 * 1024
"""Bytes of the headers of one part."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Form:
    """The parts of a multipart body; of the field `file`, the bytes are collected for the writer. No I/O here."""

    def __init__(self, boundary: bytes) -> None:
        self.name: str | None = None
        """What the user called the file; None until its part has begun."""
        self.pending = bytearray()
        self.complete = False
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = b"", b""
        self._inside = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body; `Problem` if they are no multipart form."""
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise Problem(400, f"The body is not a well-formed multipart form: {error}.") from None

    def take(self) -> bytes:
        """The file's bytes that have come since the last call."""
        data = bytes(self.pending)
        self.pending.clear()
        return data

    def _begin(self) -> None:
        self._headers.clear()

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field = self._bounded(self._field + data[start:end])

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value = self._bounded(self._value + data[start:end])

    def _bounded(self, text: bytes) -> bytes:
        if len(text) > MAX_HEADER:
            raise Problem(400, f"A header inside the multipart form is longer than {MAX_HEADER} bytes.")
        return text

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if options.get(b"name") == b"file" and self.name is None:
            self.name = options.get(b"filename", b"").decode(errors="replace") or "file"
            self._inside = True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self.pending += data[start:end]

    def _end(self) -> None:
        if self._inside:
            self._inside = False
            self.complete = True


async def create(request: Request) -> Response:
    """`POST /uploads`: store the multipart field `file`; 201 with its ref."""
    services: Services = request.app.state.services
    limit = services.settings.max_upload
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > limit + BUFFER:
        raise _too_large(limit)
    form = Form(_boundary(request))
    writing: Writing | None = None
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit + BUFFER:  # also when most of it is no file
                raise _too_large(limit)
            form.feed(chunk)
            if form.name is not None and writing is None:
                writing = await _in_thread(services.storage.create, form.name)
            if writing is not None and (len(form.pending) >= BUFFER or form.complete):
                if writing.size + len(form.pending) > limit:
                    raise _too_large(limit)
                await _in_thread(writing.write, form.take())
        if writing is None:
            raise Problem(400, 'The form has no field "file".')
        if not form.complete:
            raise Problem(400, "The body ended in the middle of the file.")
        await _in_thread(writing.commit)
    except BaseException as error:
        if writing is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(writing.abort)
        if isinstance(error, ClientDisconnect):
            raise Problem(400, "The client went away in the middle of the upload.") from None
        raise
    body = {"ref": writing.ref, "name": writing.name, "size": writing.size, "sha256": writing.sha256}
    return JSONResponse(body, 201, {"Location": f"/files/{writing.ref}"})


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise Problem(415, 'Send the file as multipart/form-data, in the field "file".')
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise Problem(400, "The Content-Type of the form has no boundary of 1 to 70 characters.")
    return boundary


def _too_large(limit: int) -> Problem:
    return Problem(413, f"A file may have at most {limit:,} bytes here.", limit=limit)


async def _in_thread(call: Callable[..., Any], *args: Any) -> Any:
    try:
        return await anyio.to_thread.run_sync(call, *args)
    except OSError as error:
        log.error("an upload cannot be stored", error=str(error))  # noqa: TRY400  # a full disk is no bug
        if error.errno in _FULL:
            raise Problem(507, "There is no room left for this file; nothing of it was kept.") from None
        raise Problem(503, "The storage cannot be written at the moment; nothing was kept.") from None


async def download(request: Request) -> Response:
    """`GET /files/{ref}`: what was uploaded, or what a task left as its result."""
    services: Services = request.app.state.services
    ref = request.path_params["ref"]
    try:
        path = await anyio.to_thread.run_sync(services.storage.path, ref)
        name = await anyio.to_thread.run_sync(services.storage.name, ref)
    except UnknownRef as error:
        raise Problem(404, str(error)) from None
    # Always a download of bytes, whatever is in it: a page that somebody uploaded must never run as one of ours.
    return FileResponse(path, media_type="application/octet-stream", filename=name)
