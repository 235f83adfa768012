"""The API's client: http.client over the unix socket, stdlib only, so that commands start fast."""

from __future__ import annotations

import errno
import grp
import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

__all__ = ["ApiError", "Client", "NoAnswer", "NotFound", "Unreachable"]

_TIMEOUT_S = 30.0
_PAGE_ROWS = 1024
_READ_BYTES = 1 << 16


class ApiError(Exception):
    """The daemon refused, or broke off; the text is its own."""


class NotFound(ApiError):  # noqa: N818 - an answer, not a failure
    """There is no such object."""


class Unreachable(ApiError):  # noqa: N818
    """Nobody answers on the socket, or we may not open it."""

    def __init__(self, path: str, error: OSError) -> None:
        advice = (
            f"it is for root and {_group_of(path)}: run as root, or as root "
            "`usermod -aG GROUP USER` and log in again"
            if error.errno == errno.EACCES
            else "is it running? try: systemctl status fwd, or fwd run --config FILE"
        )
        reason = error.strerror or str(error)
        super().__init__(f"cannot reach the daemon at {path}: {reason}; {advice}")


class NoAnswer(ApiError):  # noqa: N818
    """Somebody took the request, and gave no whole answer to it: a daemon that hangs or ends.

    Of a socket that systemd holds it may also be one that is still starting.
    """


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, connect_s: float, timeout_s: float | None) -> None:
        super().__init__("fwd")
        self._path = path
        self._connect_s = connect_s
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._connect_s)
        self.sock.connect(self._path)
        self.sock.settimeout(self._timeout_s)


class Client:
    """One daemon. Requests share a connection; a stream has its own.

    Args:
        socket_path: of the daemon's API socket.
        timeout_s: how long to wait for it to accept, and then for each piece of its answer.
    """

    def __init__(self, socket_path: str | Path, timeout_s: float = _TIMEOUT_S) -> None:
        self._path = str(socket_path)
        self._timeout_s = timeout_s
        self._connection: _UnixConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def get(self, path: str, **query: object) -> Any:  # noqa: ANN401 - JSON
        """Fetch one JSON document.

        Args:
            path: of the resource, unquoted: ``/v1/endpoint/default/curl``.
            query: parameters; None leaves one out, a list repeats it.

        Raises:
            Unreachable: nobody answers on the socket.
            NoAnswer: somebody took the request and did not answer it.
            NotFound: the daemon knows no such object.
            ApiError: the daemon refused or failed; the text is its answer.
        """
        return self._request("GET", path, query)

    def post(self, path: str, body: object = None, **query: object) -> Any:  # noqa: ANN401 - JSON
        """Order something, with ``body`` as JSON where there is one; raises as ``get``."""
        return self._request("POST", path, query, body)

    def rows(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Walk a table page by page, holding one page at a time; raises as ``get``."""
        cursor: object = 0
        while True:
            page = self.get(path, **({"limit": _PAGE_ROWS} | query | {"cursor": cursor}))
            yield from page["rows"]
            cursor = page.get("next") or 0
            if not cursor:
                return

    def fetch(self, path: str, accept: tuple[str, str], **query: object) -> tuple[str, str, bytes]:
        """Fetch a resource in a form of one's own, or in the daemon's where it does not know it.

        Args:
            path: as for ``get``.
            accept: the content type asked for, and the header that says more about such an answer.
            query: as for ``get``.

        Returns:
            The content type, that header ("" without one) and the body; raises as ``get``.
        """
        content_type, header = accept
        response, body = self._exchange("GET", path, query, accept=content_type)
        return response.headers["Content-Type"] or "", response.headers[header] or "", body

    def text(self, path: str) -> str:
        """Fetch a plain text resource; raises as ``get``."""
        return self._exchange("GET", path, {})[1].decode()

    def stream(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Follow an ndjson stream until the caller stops or the daemon ends; raises as ``get``."""
        connection = _UnixConnection(self._path, self._timeout_s, None)
        try:
            response = self._send(connection, "GET", _target(path, query))
            if response.status != http.client.OK:
                raise _refusal(response.status, response.read())
            rest = b""
            while data := response.read1(_READ_BYTES):  # unlike readline, it tells a break
                *lines, rest = (rest + data).split(b"\n")
                yield from map(json.loads, filter(None, lines))
        except (http.client.HTTPException, ConnectionError) as error:
            raise ApiError(f"the daemon at {self._path} broke off the stream: {error}") from error
        finally:
            connection.close()

    def close(self) -> None:
        """Let go of the connection; the next request opens one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _request(
        self, method: str, path: str, query: dict[str, object], body: object = None
    ) -> Any:  # noqa: ANN401 - JSON
        _, answer = self._exchange(method, path, query, body)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise ApiError(f"the daemon answered {method} {path} with no JSON") from error

    def _exchange(
        self,
        method: str,
        path: str,
        query: dict[str, object],
        body: object = None,
        accept: str | None = None,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        target = _target(path, query)
        data = None if body is None else json.dumps(body).encode()
        try:
            response, answer = self._try(method, target, data, accept)
        except TimeoutError as error:
            self.close()
            raise NoAnswer(
                f"{method} {target}: no answer from {self._path} within {self._timeout_s:.3g} s: "
                "the daemon is still starting, or hangs; see: journalctl -u fwd"
            ) from error
        except (http.client.HTTPException, ConnectionError) as error:
            self.close()
            raise NoAnswer(f"{method} {target} failed, the daemon broke off: {error}") from error
        if response.status != http.client.OK:
            raise _refusal(response.status, answer)
        return response, answer

    def _try(
        self, method: str, target: str, data: bytes | None, accept: str | None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send on the kept connection, or on a fresh one when the daemon has closed that."""
        if self._connection is not None:
            try:
                return self._answer(self._send(self._connection, method, target, data, accept))
            except (http.client.RemoteDisconnected, ConnectionError):
                self.close()
        self._connection = _UnixConnection(self._path, self._timeout_s, self._timeout_s)
        return self._answer(self._send(self._connection, method, target, data, accept))

    @staticmethod
    def _answer(
        response: http.client.HTTPResponse,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        return response, response.read()

    def _send(
        self,
        connection: _UnixConnection,
        method: str,
        target: str,
        data: bytes | None = None,
        accept: str | None = None,
    ) -> http.client.HTTPResponse:
        if connection.sock is None:
            try:
                connection.connect()
            except OSError as error:
                connection.close()
                raise Unreachable(self._path, error) from error
        headers = {} if data is None else {"Content-Type": "application/json"}
        headers |= {} if accept is None else {"Accept": accept}
        connection.request(method, target, data, headers)
        return connection.getresponse()


def _group_of(path: str) -> str:
    """Name the group that may open a socket, as far as we may see it."""
    try:
        return f"its group {grp.getgrgid(os.stat(path).st_gid).gr_name}"  # noqa: PTH116 - a text
    except (OSError, KeyError):
        return "its group (fwd, where the package is installed)"


def _target(path: str, query: dict[str, object]) -> str:
    parameters = urlencode({k: v for k, v in query.items() if v is not None}, doseq=True)
    return quote(path) + (f"?{parameters}" if parameters else "")


def _refusal(status: int, body: bytes) -> ApiError:
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        text = f"the daemon answered with HTTP status {status}"
    return NotFound(text) if status == http.client.NOT_FOUND else ApiError(text)
