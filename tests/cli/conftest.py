"""A daemon without devices for every test that asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog

from fwd.observe.log import configure_log
from tests.api.daemon import LabDaemon, lab_daemon

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabDaemon]:
    """A daemon on node1 of the seed's world; its log is not on the command's stdout."""
    directory = tmp_path_factory.mktemp("lab")
    with (directory / "log").open("w") as log, lab_daemon(directory) as daemon:
        configure_log(stream=log)
        yield daemon
        structlog.reset_defaults()
