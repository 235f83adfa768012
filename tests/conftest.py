"""Set-up of the whole suite: which extension, hypothesis profiles, root-only tests, leaks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTENSION = "fwd.datapath._fwd"
NETNS_TOOLS = ("ip", "ping", "curl", "nginx")


if "FWD_TEST_EXTENSION" in os.environ:
    found = importlib.util.find_spec(EXTENSION)
    if found is None or found.origin != os.environ["FWD_TEST_EXTENSION"]:
        text = "FWD_TEST_EXTENSION needs tests/sanitized on PYTHONPATH: run make asan"
        raise pytest.UsageError(text)

# Shared machines stall for seconds: a deadline would test the neighbours.
settings.register_profile(
    "dev", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, database=None)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if "CI" in os.environ else "dev")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag that rewrites golden files."""
    parser.addoption(
        "--refresh-golden",
        action="store_true",
        help="write what the code answers into the golden files; review the diff",
    )


@pytest.fixture(scope="session")
def refresh_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared."""
    return bool(request.config.getoption("--refresh-golden"))


def _netns_obstacle() -> str | None:
    """Why tests with namespaces cannot run here; None when they can."""
    if os.geteuid() != 0:
        return "needs root for namespaces and TAP devices: sudo make test"
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun: modprobe tun"
    missing = [tool for tool in NETNS_TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)} (make packages)" if missing else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this user or machine cannot run; namespaces come last."""
    obstacle = _netns_obstacle()
    if obstacle is not None:
        for item in items:
            if "netns" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=obstacle))
    items.sort(key=lambda item: "netns" in item.keywords)


def _traces() -> set[str]:
    """Namespaces and interfaces of this host that could be ours."""
    if shutil.which("ip") is None:
        return set()
    found = set()
    for what in (["netns", "list"], ["-br", "link"]):
        listing = subprocess.run(["ip", *what], capture_output=True, text=True, check=False).stdout
        names = (line.split()[0].split("@")[0] for line in listing.splitlines() if line.strip())
        found.update(f"{what[-1]} {name}" for name in names)
    prefixes = ("fwd", "lxc", "cilium_", "tap")
    return {trace for trace in found if trace.split()[1].startswith(prefixes)}


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a session that used namespaces when one, or an interface, of ours outlives it."""
    if not any("netns" in item.keywords for item in request.session.items):
        yield
        return
    before = _traces()
    yield
    for _ in range(50):  # the kernel takes namespaces down in its own time
        left = _traces() - before
        if not left:
            break
        time.sleep(0.2)
    assert not left, f"left behind: {sorted(left)}"
