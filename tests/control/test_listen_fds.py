"""Descriptors that a fake manager hands to a process it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from fwd.control.listen_fds import take

CHILD = """
import json, os
os.environ["LISTEN_PID"] = os.environ.get("AS_PID") or str(os.getpid())
from fwd.control.listen_fds import take
found = take()
kept = [fd for fds in found.values() for fd in fds]
print(json.dumps([found, [os.get_inheritable(fd) for fd in kept],
                  [name for name in os.environ if name.startswith("LISTEN_")]]))
"""


def started(**environ: str):
    """What a child with two descriptors at 3 and 4 makes of them."""
    pipe = os.pipe()
    setup = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4);"
    setup += "os.execv(sys.executable, [sys.executable, '-c', sys.argv[3]])"
    try:
        done = subprocess.run(
            [sys.executable, "-c", setup, *map(str, pipe), CHILD],
            pass_fds=pipe, env=os.environ | environ, check=True, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        os.close(pipe[0])
        os.close(pipe[1])
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("api:tap", {"api": [3], "tap": [4]}),
        ("tap:tap", {"tap": [3, 4]}),
        ("api", {"api": [3], "unknown": [4]}),
        ("", {"unknown": [3, 4]}),
    ],
)
def test_descriptors_come_by_name(names, found):
    """Closed on exec from then on, and the variables are gone."""
    given = started(LISTEN_FDS="2", LISTEN_FDNAMES=names)
    assert given == [found, [False, False], []]


@pytest.mark.parametrize(
    "environ", [{"LISTEN_FDS": "2", "AS_PID": "1"}, {"LISTEN_FDS": "many"}, {}]
)
def test_what_is_not_ours_is_left(environ):
    """Another process's descriptors are not touched, and no child is told of them."""
    assert started(**environ) == [{}, [], []]


def test_nothing_is_taken_without_a_manager():
    """The usual case."""
    assert take({}) == {}
