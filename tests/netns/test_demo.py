"""``fwd demo`` end to end: it shows the walk, and leaves nothing whatever happens to it.

curl 10.244.0.108 -- TAP -- fwd node1 ==== UDP 8472 ==== fwd node2 -- TAP -- nginx 10.244.2.171
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import pytest

from fwd.control.lab import Lab

pytestmark = [pytest.mark.netns]

DEMO = [sys.executable, "-m", "fwd", "demo"]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def _namespaces() -> set[str]:
    listing = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in listing.stdout.splitlines()}


def test_demo_shows_the_walk_and_both_maps():
    """HTTP 200, every row of the packet's way in order, the tunnel and the pod in the tables."""
    before = _namespaces()
    done = _run()
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [int(row) for row in re.findall(r"^ {2}( ?\d+)  \w+", done.stdout, re.MULTILINE)]
    assert rows == sorted(rows)
    assert set(rows) >= {0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
    assert "HTTP status 200" in done.stdout
    assert re.search(r"10\.244\.2\.171/32 .*tunnelendpoint=192\.168\.56\.106", done.stdout)
    assert re.search(r"10\.244\.2\.171:0 +id=\d+ .*ifindex=\d+ +mac=[0-9A-F:]{17}", done.stdout)
    assert _namespaces() <= before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [0.6, 2.0])
def test_an_interrupted_demo_leaves_nothing(number, after_s):
    """Ctrl-C or SIGTERM at any moment takes everything down."""
    before, left = _namespaces(), set(Lab.left())
    demo = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(after_s)
    demo.send_signal(number)
    demo.communicate(timeout=60)
    assert _namespaces() <= before
    assert set(Lab.left()) <= left


def test_keep_leaves_it_up_and_down_removes_only_it():
    """--keep prints how to look at it; down removes this demo and no other lab."""
    before = _namespaces()
    with Lab("fwd-test") as bystander:
        other = bystander.namespace("bystander")
        kept = _run("--keep")
        assert kept.returncode == 0, kept.stdout + kept.stderr
        made = _namespaces() - before - {other}
        assert len(made) == 4
        removed = _run("down")
        assert removed.returncode == 0, removed.stderr
        assert _namespaces() - before == {other}


def test_a_missing_folder_is_one_line(tmp_path):
    """A folder without node files: what is missing and what to do, and nothing made."""
    before = _namespaces()
    done = _run("--config-dir", str(tmp_path))
    assert done.returncode == 1
    assert "node1.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    assert _namespaces() <= before
