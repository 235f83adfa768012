"""A daemon without devices for every test that asks for one."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import structlog

from fwd.observe.log import configure_log
from tests.api.daemon import LabDaemon, lab_daemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabDaemon]:
    """A daemon on node1 of the seed's world; its log is not on the command's stdout."""
    directory = tmp_path_factory.mktemp("lab")
    with (directory / "log").open("w") as log, lab_daemon(directory) as daemon:
        configure_log(stream=log)
        yield daemon
        structlog.reset_defaults()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    """A socket that takes connections, as systemd's does, and behind which nobody answers."""
    path = str(tmp_path / "silent.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(16)
        yield path
