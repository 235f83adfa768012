"""`fwd status`: literal output, one word, and waiting."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from pathlib import Path

from fwd.model.version import version
from tests.api.daemon import LabDaemon, lab_daemon
from tests.cli.invoke import fwd


def test_status_text(lab: LabDaemon):
    """The daemon at a glance."""
    ran = fwd("status", socket=lab.socket)
    assert (
        re.sub(r"up 3m\d\ds", "up 3m12s", ran.out)
        == f"""\
Daemon:     ok, up 3m12s, pid {os.getpid()}, fwd {version()}
Node:       node1, underlay 192.168.56.105
Pods:       10.244.0.0/24 via 10.244.0.150
Config:     {lab.agent.path}, revision 1
Endpoints:  1 of 1 ready
Peers:      1
Conntrack:  tcp 0/8192, any 0/8192
Tables:     ipcache 8/512000, endpoint 1/1024, lxc 3/4096, policy 2/65536, peer 1/4096, \
frag 0/8192, service 0/4096, backend 0/16384, affinity 0/65536, nat 0/10922, \
source_range 0/4096, maglev 0/1024
Packets:    12 in, 11 out
Monitor:    0 listeners, 0 events lost
"""
    )
    assert (ran.code, ran.err) == (0, "")


def test_status_tells_what_is_open_to_the_outside(lab: LabDaemon):
    """One line, where there is anything."""
    plain = lab.agent.status()
    opened = {"device": "cilium_net", "uplink": "eth0", "frontends": 3}
    lab.agent.status = lambda: plain | {"outside": opened}  # type: ignore[method-assign]
    ran = fwd("status", socket=lab.socket)
    assert "Outside:    3 frontends, from eth0 to cilium_net\n" in ran.out


def test_status_tells_of_a_lost_device_of_the_nodes(lab: LabDaemon):
    """The host's way to pods is part of what shall be well: in every form, and for --wait."""
    plain = lab.agent.status()
    lab.agent.status = lambda: plain | {"lost": ["cilium_host"]}  # type: ignore[method-assign]
    ran = fwd("status", socket=lab.socket)
    assert ran.out.startswith("Daemon:     degraded, up ")
    assert "Lost:       cilium_host: somebody deleted it; `fwd reload` makes it again\n" in ran.out
    ran = fwd("status", "--brief", socket=lab.socket)
    assert (ran.out, ran.code) == ("degraded: endpoints 1 of 1 ready, cilium_host gone\n", 1)
    assert fwd("status", "--wait", "0.2", socket=lab.socket).code == 5
    ran = fwd("doctor", "--config", str(lab.agent.path), socket=lab.socket)
    assert "1 of 1 endpoints ready, cilium_host gone: `fwd reload`" in ran.out.splitlines()[0]
    assert ran.out.startswith("fail  daemon: ")


def test_status_json(lab: LabDaemon):
    """The API's object as it is."""
    answer = json.loads(fwd("status", "-o", "json", socket=lab.socket).out)
    assert answer["node"]["name"] == "node1"


def test_status_brief(lab: LabDaemon):
    """One word and the exit code, for scripts."""
    ran = fwd("status", "--brief", socket=lab.socket)
    assert (ran.out, ran.code) == ("OK\n", 0)


def test_status_degraded(lab: LabDaemon):
    """An endpoint that is gone shows in every form."""
    lab.agent.endpoint_states = lambda: {2825: "gone"}  # type: ignore[method-assign]
    ran = fwd("status", "--brief", socket=lab.socket)
    assert (ran.out, ran.code) == ("degraded: endpoints 0 of 1 ready, 1 gone\n", 1)
    ran = fwd("status", socket=lab.socket)
    assert ran.code == 0
    assert ran.out.startswith("Daemon:     degraded, up ")


def test_status_wait_times_out_on_an_endpoint(lab: LabDaemon):
    """What is not ready in time ends with 5 and says what was missing."""
    lab.agent.endpoint_states = lambda: {2825: "gone"}  # type: ignore[method-assign]
    ran = fwd("status", "--brief", "--wait", "0.2", socket=lab.socket)
    assert ran.code == 5
    assert ran.err == "fwd: not ready after 0.2 s: endpoints 0 of 1 ready, 1 gone\n"


def test_status_wait_times_out_without_a_daemon(tmp_path: Path):
    """Nobody there in time is 5 too, not 3."""
    ran = fwd("status", "--wait", "0.2", socket=str(tmp_path / "no.sock"))
    assert ran.code == 5
    assert "cannot reach the daemon" in ran.err


def test_status_wait_keeps_its_time_where_nobody_answers(silent: str):
    """A socket that accepts is no daemon: what was waited for did not come, in that time."""
    began = time.monotonic()
    ran = fwd("status", "--wait", "1", socket=silent)
    assert 0.9 < time.monotonic() - began < 4
    assert ran.code == 5
    assert f"no answer from {silent} within " in ran.err


def test_status_wait_outlives_a_daemon_that_breaks_off(tmp_path: Path):
    """A daemon that ends under the question is asked again: the next one may be well."""
    path = str(tmp_path / "fwd.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dying:
        dying.bind(path)
        dying.listen(4)
        codes: list[int] = []
        waiter = threading.Thread(target=lambda: codes.append(_wait_code(path)))
        waiter.start()
        dying.accept()[0].close()
    with lab_daemon(tmp_path):
        waiter.join(10)
    assert codes == [0]


def test_status_wait_sees_the_daemon_come(tmp_path: Path):
    """A daemon that comes up in time is success."""
    codes: list[int] = []
    waiter = threading.Thread(target=lambda: codes.append(_wait_code(str(tmp_path / "fwd.sock"))))
    waiter.start()
    time.sleep(0.2)
    with lab_daemon(tmp_path):
        waiter.join(10)
    assert codes == [0]


def _wait_code(socket: str) -> int:
    from fwd.cli.status import _fetch  # noqa: PLC0415 - main() would redirect this thread's stdout

    return 0 if _fetch(socket, 8)["endpoints"]["total"] == 1 else 1
