"""A daemon without devices for every test that asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.daemon import LabDaemon, lab_daemon

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabDaemon]:
    """A daemon on node1 of the seed's world."""
    with lab_daemon(tmp_path_factory.mktemp("lab")) as daemon:
        yield daemon
