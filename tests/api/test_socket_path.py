"""Who may have the socket's path."""

from __future__ import annotations

import socket

import pytest
import structlog

from fwd.api.socket_path import SocketTakenError, claim, open_to_group, remove, tell_path


def test_socket_of_the_dead_is_taken_over(tmp_path):
    """A socket file that nobody listens on goes, and its directory is made where it is missing."""
    path = tmp_path / "run" / "fwd.sock"
    claim(path)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
    claim(path)
    assert not path.exists()


def test_socket_of_the_living_is_refused(tmp_path):
    """A daemon that answers keeps its socket; the error says what to do."""
    path = tmp_path / "fwd.sock"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        one.listen()
        with pytest.raises(SocketTakenError, match=r"another daemon answers on .*: stop it"):
            claim(path)
        open_to_group(path)
        assert path.stat().st_mode & 0o777 == 0o660
    remove(path)
    remove(path)
    assert not path.exists()


def test_listener_elsewhere_is_told(tmp_path):
    """The unit's socket wins over the node file's, and the log says so."""
    path = tmp_path / "fwd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.bind(str(path))
        with structlog.testing.capture_logs() as logs:
            tell_path(one, path)
            assert logs == []
            tell_path(one, tmp_path / "other.sock")
    assert (logs[0]["socket"], logs[0]["log_level"]) == (str(path), "warning")
