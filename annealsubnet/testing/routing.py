"""Routing: Leap's solver interface over HTTP on 127.0.0.1, with everything that may go wrong on the way.

Answers carry the media types and versions that the client checks. A fault thrown for a request takes the place of its answer,
before or after the request was carried out.
"""

import contextlib
import json
import re
import socket
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from annealsubnet.testing.faults import Dice
from annealsubnet.testing.service import Service

PREFIX = "/sapi/v2/"
_MEDIA = "application/vnd.dwave.sapi.{}+json; version=3.0.0"
_ANSWERED_FAULTS = {
    "unauthorized": (401, "Invalid token or access denied"),
    "too many requests": (429, "Too many requests"),
    "server error": (500, "Internal server error"),
    "unavailable": (503, "Service unavailable"),
}
Answer = tuple[int, str, Any]
_BAD_CHECKSUM: Answer = (400, "application/json", {"error_code": 400, "error_msg": "bad checksum"})


class Server(ThreadingHTTPServer):
    """The HTTP server of a service."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service: Service, dice: Dice, token: str, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.service, self.dice, self.token = service, dice, token

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle of a request is no error of ours."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Solvers, statuses, answers, uploads."""
        self._carry_out()

    do_POST = do_PUT = do_DELETE = do_GET

    def _carry_out(self) -> None:
        body = self._body()
        path = urlsplit(self.path)
        self.server.service.requests[f"{self.command} {path.path.removeprefix(PREFIX).split('/')[0]}"] += 1
        fault = self.server.dice.of_request()
        if fault in _ANSWERED_FAULTS:
            code, message = _ANSWERED_FAULTS[fault]
            self._send(code, "application/json", {"error_code": code, "error_msg": message})
            return
        if fault == "dropped before":
            self._drop()
            return
        if self.headers.get("X-Auth-Token") != self.server.token:
            self._send(401, "application/json", {"error_code": 401, "error_msg": "Invalid token or access denied"})
            return
        code, media, answer = self._answer(path.path.removeprefix(PREFIX).strip("/"), parse_qs(path.query), body)
        if fault == "dropped after":
            self._drop()
            return
        self._send(code, media, answer, truncated=fault == "truncated")

    def _answer(self, path: str, query: dict[str, list[str]], body: bytes) -> Answer:
        for method, pattern, answer in ROUTES:
            found = re.fullmatch(pattern, path)
            if method == self.command and found:
                try:
                    return answer(self, found, query, body)
                except (KeyError, ValueError, TypeError) as error:
                    return 400, "application/json", {"error_code": 400, "error_msg": f"{type(error).__name__}: {error}"}
        return 404, "application/json", {"error_code": 404, "error_msg": f"There is no {self.command} {path}"}

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(chunks)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return zlib.decompress(body) if self.headers.get("Content-Encoding") == "deflate" else body

    def _send(self, code: int, media: str, answer: Any, *, truncated: bool = False) -> None:
        content = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if truncated else content)
        self.wfile.flush()
        if truncated:
            self._drop()

    def _drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _filtered(solver: dict[str, Any], query: dict[str, list[str]]) -> dict[str, Any]:
    """The fields that "all,-a,-b" or "none,+a,+b" leave."""
    words = query.get("filter", ["all"])[0].replace(" ", "+").split(",")
    fields = set(solver) if words[0] == "all" else set()
    for word in words[1:]:
        fields = fields - {word[1:]} if word.startswith("-") else fields | {word.removeprefix("+")}
    return {name: value for name, value in solver.items() if name in fields}


def _list_solvers(handler: Handler, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> Answer:
    solvers = [_filtered(solver, query) for solver in handler.server.service.solvers.values()]
    return 200, _MEDIA.format("solver-definition-list"), solvers


def _get_solver(handler: Handler, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> Answer:
    solver = handler.server.service.solvers.get(found[1])
    if solver is None:
        return 404, "application/json", {"error_code": 404, "error_msg": f"There is no solver {found[1]!r}"}
    return 200, _MEDIA.format("solver-definition"), _filtered(solver, query)


def _submit(handler: Handler, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> Answer:
    jobs = json.loads(body)
    return 200, _MEDIA.format("problems"), [handler.server.service.submit(job) for job in jobs]


def _list_jobs(handler: Handler, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> Answer:
    service = handler.server.service
    if "id" in query:
        timeout = float(query.get("timeout", ["0"])[0])
        return 200, _MEDIA.format("problems"), service.statuses(query["id"][0].split(","), timeout=timeout)
    most = int(query.get("max_results", ["1000"])[0])
    return 200, _MEDIA.format("problems"), service.listed(query["label"][0] if "label" in query else None, most)


def _get_job(handler: Handler, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> Answer:
    job = handler.server.service.jobs.get(found[1])
    if job is None:
        return 404, "application/json", {"error_code": 404, "error_msg": "Problem does not exist"}
    return 200, _MEDIA.format("problem"), job.summary(with_answer=True)


def _cancel(handler: Handler, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> Answer:
    return 200, _MEDIA.format("problems"), handler.server.service.cancel(json.loads(body))


def _begin_upload(handler: Handler, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> Answer:
    return 200, "application/json", handler.server.service.begin_upload(int(json.loads(body)["size"]))


def _put_part(handler: Handler, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> Answer:
    good = handler.server.service.put_part(found[1], int(found[2]), body, handler.headers.get("Content-MD5"))
    return (200, "application/json", {}) if good else _BAD_CHECKSUM


def _combine(handler: Handler, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> Answer:
    good = handler.server.service.combine(found[1], json.loads(body)["checksum"])
    return (200, "application/json", {}) if good else _BAD_CHECKSUM


def _upload_status(handler: Handler, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> Answer:
    status = handler.server.service.upload_status(found[1])
    missing = {"error_code": 404, "error_msg": "There is no such upload"}
    return (200, "application/json", status) if status is not None else (404, "application/json", missing)


ROUTES: tuple[tuple[str, str, Callable[[Handler, re.Match[str], dict[str, list[str]], bytes], Answer]], ...] = (
    ("GET", r"solvers/remote", _list_solvers),
    ("GET", r"solvers/remote/([^/]+)", _get_solver),
    ("POST", r"problems", _submit),
    ("GET", r"problems", _list_jobs),
    ("GET", r"problems/([^/]+)", _get_job),
    ("DELETE", r"problems", _cancel),
    ("POST", r"bqm/multipart", _begin_upload),
    ("PUT", r"bqm/multipart/([^/]+)/part/(\d+)", _put_part),
    ("POST", r"bqm/multipart/([^/]+)/combine", _combine),
    ("GET", r"bqm/multipart/([^/]+)/status", _upload_status),
)
