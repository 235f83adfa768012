"""The client: every way a daemon can be absent, refuse or go away has its own error."""

from __future__ import annotations

import errno
import grp
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from fwd.api.client import ApiError, Client, NotFound, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.api.daemon import LabDaemon


@pytest.fixture
def rude(tmp_path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """A socket that answers each connection with the next of some bytes, then hangs up."""
    path = str(tmp_path / "rude.sock")
    answers: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(4)

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if connection.recv(4096) and answers:
                    connection.sendall(answers.pop(0))
                elif not answers:
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    yield path, answers
    answers.clear()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
        last.connect(path)
    thread.join(5)
    listener.close()


def test_unreachable_says_what_to_try(tmp_path: Path):
    """Without a daemon the error names the socket, the reason and two next steps."""
    with pytest.raises(Unreachable) as caught:
        Client(tmp_path / "none.sock").get("/v1/status")
    assert str(caught.value) == (
        f"cannot reach the daemon at {tmp_path}/none.sock: No such file or directory; is it "
        "running? try: systemctl status fwd, or fwd run --config FILE"
    )


def test_unreachable_when_nobody_listens(tmp_path: Path):
    """A socket file whose daemon is gone is as unreachable as none."""
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with pytest.raises(Unreachable, match="Connection refused"):
        Client(path).get("/v1/status")


def test_not_found_and_refused_carry_the_daemons_text(lab: LabDaemon):
    """404 is NotFound, other refusals ApiError, both with the daemon's words."""
    with Client(lab.socket) as client:
        with pytest.raises(NotFound, match="no endpoint 'frob'; see: fwd endpoint list"):
            client.get("/v1/endpoint/frob")
        with pytest.raises(ApiError, match="map='x' is unknown; use tcp or any"):
            client.get("/v1/ct", map="x")


def test_connection_is_reused_and_reopened(lab: LabDaemon):
    """Requests share a connection; one that the daemon has closed is opened again."""
    with Client(lab.socket) as client:
        client.get("/v1/status")
        first = client._connection
        client.get("/v1/status")
        assert client._connection is first
        assert first is not None
        first.sock.shutdown(socket.SHUT_RDWR)
        assert client.get("/v1/status")["node"]["name"] == "node1"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "broke off"),
        (b"nonsense\r\n\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{]{]", "no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{}", "broke off"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\n{}", "HTTP status 502"),
    ],
)
def test_broken_answers_are_api_errors(rude: tuple[str, list[bytes]], answer: bytes, text: str):
    """A daemon that dies in the middle is an error of one kind, never a traceback."""
    path, answers = rude
    answers.append(answer or b"\n")
    with Client(path) as client, pytest.raises(ApiError, match=text):
        client.get("/v1/status")


def test_broken_stream_is_an_api_error(rude: tuple[str, list[bytes]]):
    """Records before the break arrive; the break is an error, not an end."""
    path, answers = rude
    answers.append(
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{"type":1}\n\r\n1\r\n\n\r\n'
    )
    got = []
    with pytest.raises(ApiError, match="broke off the stream"):
        got.extend(Client(path).stream("/v1/monitor"))
    assert got in ([{"type": 1}], [])


def test_rows_walk_pages(lab: LabDaemon):
    """Whatever the page size, every row comes once and in order."""
    with Client(lab.socket) as client:
        whole = list(client.rows("/v1/ipcache"))
        assert len(whole) == len({row["prefix"] for row in whole}) == 8
        for limit in (1, 3, 7):
            assert list(client.rows("/v1/ipcache", limit=limit)) == whole


def test_socket_that_is_not_for_us_names_its_group(tmp_path: Path):
    """Its daemon may well be running; what helps is the group, or root."""
    path = tmp_path / "fwd.sock"
    path.touch()
    group = grp.getgrgid(path.stat().st_gid).gr_name
    denied = PermissionError(errno.EACCES, "Permission denied")
    assert str(Unreachable(str(path), denied)) == (
        f"cannot reach the daemon at {path}: Permission denied; it is for root and its group "
        f"{group}: run as root, or as root `usermod -aG GROUP USER` and log in again"
    )
    assert "its group (fwd, where the package is installed)" in str(
        Unreachable(f"{tmp_path}/none", denied)
    )
