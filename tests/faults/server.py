"""An HTTP server on 127.0.0.1 that misbehaves as it is told."""

from __future__ import annotations

import contextlib
import http.server
import re
import ssl
import threading
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """How one answer goes wrong.

    Attributes:
        status: instead of 200 or 206; then there is no body.
        drop_after: bytes of the body after which the connection ends.
        pause_after: bytes of the body after which the server waits until `Server.go_on` is set.
        wrong: whether the body's bytes are others.
        length: what Content-Length says.
        unsized: whether no length is told at all.
        endless: whether the body is repeated until the client goes.
        location: where a redirect leads.
        headers: further ones.
    """

    status: int | None = None
    drop_after: int | None = None
    pause_after: int | None = None
    wrong: bool = False
    length: int | None = None
    unsized: bool = False
    endless: bool = False
    location: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Server:
    """Serves bytes by path; used as a context manager.

    Attributes:
        files: path, with its slash -> content; may change at any time.
        faults: path -> what goes wrong in the next answers, in turn; then nothing does.
        ranges: whether `Range` is understood.
        requests: (path, Range header or None, status) of every answer, in order.
        sent: bytes of all bodies.
        paused: set while an answer waits; go_on: what it waits for.
    """

    def __init__(self, files: dict[str, bytes] | None = None, certificate=None) -> None:
        self.files, self.faults = dict(files or {}), {}
        self.ranges = True
        self.requests: list[tuple[str, str | None, int]] = []
        self.sent = 0
        self.paused, self.go_on = threading.Event(), threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._scheme = "https"

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, path: str, *faults: Fault) -> None:
        self.faults[path] = deque(faults)

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()


def _handler(owner: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_) -> None:
            pass

        def do_GET(self) -> None:
            path = re.sub(r"^http://[^/]+", "", self.path)  # as a proxy gets it
            waiting = owner.faults.get(path)
            fault = waiting.popleft() if waiting else Fault()
            content, asked = owner.files.get(path), self.headers.get("Range")
            self.close_connection = True
            if content is None or fault.status is not None:
                return self._end(path, fault.status or 404, fault)
            start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1)) if owner.ranges and asked else None
            if start is not None and start >= len(content):
                return self._end(path, 416, Fault(headers=(("Content-Range", f"bytes */{len(content)}"),)))
            body = content[start or 0 :]
            status = 200 if start is None else 206
            owner.requests.append((path, asked, status))
            self.send_response(status)
            if start is not None:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if not fault.unsized:
                self.send_header("Content-Length", str(len(body) if fault.length is None else fault.length))
            self._headers(fault)
            return self._body(body, fault)

        def _end(self, path: str, status: int, fault: Fault) -> None:
            owner.requests.append((path, self.headers.get("Range"), status))
            self.send_response(status)
            if fault.location is not None:
                self.send_header("Location", fault.location)
            self.send_header("Content-Length", "0")
            self._headers(fault)

        def _headers(self, fault: Fault) -> None:
            for name, value in fault.headers:
                self.send_header(name, value)
            self.end_headers()

        def _body(self, body: bytes, fault: Fault) -> None:
            if fault.wrong:
                body = bytes(255 - byte for byte in body[:100]) + body[100:]
            end = len(body) if fault.drop_after is None else fault.drop_after
            pause = end if fault.pause_after is None else fault.pause_after
            with contextlib.suppress(OSError):  # the client is gone
                position = self._send(body, 0, min(pause, end))
                if fault.pause_after is not None:
                    owner.paused.set()
                    owner.go_on.wait()
                position = self._send(body, position, end)
                while fault.endless:
                    self._send(body, 0, len(body))

        def _send(self, body: bytes, start: int, end: int) -> int:
            for position in range(start, end, 1 << 14):
                owner.sent += self.wfile.write(body[position : min(position + (1 << 14), end)])
            return max(start, end)

    return Handler
