"""``fwd demo`` end to end: it shows the walk, and leaves nothing whatever happens to it.

curl 10.244.0.108 -- TAP -- fwd node1 ==== UDP 8472 ==== fwd node2 -- TAP -- nginx 10.244.2.171
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fwd.control.lab import Lab

pytestmark = [pytest.mark.netns]

UNBUFFERED = {**os.environ, "PYTHONUNBUFFERED": "1"}
DEMO = [sys.executable, "-m", "fwd", "demo"]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def _left(output: str) -> list[str]:
    """What is there of the demo that printed ``output``: namespaces and its folder."""
    made = re.search(r"^namespaces (fwd-\w+-)\*, files in (\S+)$", output, re.MULTILINE)
    if made is None:
        return []  # it had made nothing yet
    listing = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in listing.stdout.splitlines()]
    folder = [made[2]] if Path(made[2]).exists() else []
    return [name for name in names if name.startswith(made[1])] + folder


def test_demo_shows_the_walk_and_both_maps():
    """HTTP 200, every row of the packet's way in order, the tunnel and the pod in the tables."""
    done = _run()
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [int(row) for row in re.findall(r"^ {2}( ?\d+)  \w+", done.stdout, re.MULTILINE)]
    assert rows == sorted(rows)
    assert set(rows) >= {0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
    assert "HTTP status 200" in done.stdout
    assert re.search(r"10\.244\.2\.171/32 .*tunnelendpoint=192\.168\.56\.106", done.stdout)
    assert re.search(r"10\.244\.2\.171:0 +id=\d+ .*ifindex=\d+ +mac=[0-9A-F:]{17}", done.stdout)
    assert "namespaces fwd-" in done.stdout
    assert _left(done.stdout) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.0])
def test_an_interrupted_demo_leaves_nothing(number, after_s):
    """Ctrl-C or SIGTERM while it makes or uses its namespaces takes everything down."""
    demo = subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=UNBUFFERED
    )
    shown = ""
    while "namespaces fwd-" not in shown:
        shown += demo.stdout.readline()
    time.sleep(after_s)
    demo.send_signal(number)
    rest, errors = demo.communicate(timeout=60)
    assert _left(shown + rest) == []
    assert demo.returncode == (130 if "interrupted" in errors else 0)
    assert "Traceback" not in errors


def test_keep_leaves_it_up_and_down_removes_only_it():
    """--keep prints how to look at it; down removes demos and no other lab."""
    with Lab("fwd-test") as bystander:
        bystander.namespace("bystander")
        kept = _run("--keep")
        assert kept.returncode == 0, kept.stdout + kept.stderr
        assert len(_left(kept.stdout)) == 5
        status = re.search(r"^ {2}(fwd --socket \S+ status)$", kept.stdout, re.MULTILINE)
        assert status is not None
        argv = [sys.executable, "-m", *status[1].split()]
        assert subprocess.run(argv, capture_output=True, check=False).returncode == 0
        removed = _run("down")
        assert removed.returncode == 0, removed.stderr
        assert _left(kept.stdout) == []
        bystander.run("bystander", "true")


def test_a_missing_folder_is_one_line(tmp_path):
    """A folder without node files: what is missing and what to do, and nothing made."""
    done = _run("--config-dir", str(tmp_path))
    assert done.returncode == 1
    assert "node1.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    assert _left(done.stdout) == []
