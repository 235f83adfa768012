"""As whom a daemon runs, by systemd's word and by /proc, and what doctor makes of it."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from fwd.config.load import load_node_file
from fwd.control import doctor, runner
from fwd.control.runner import Runner, find_runner, refused, unit_environ
from fwd.netlink.door import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns  # root's: it takes another user's place
NOBODY = pwd.getpwnam("nobody")
ADMIN = frozenset({"cap_net_admin"})
NODE = "node: {name: n, ip: 127.0.0.1, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}\n"
UNIT = """\
LoadState=loaded
User=nobody
AmbientCapabilities=cap_net_admin
Environment=FDSTORE=1024 FWD_TUNNEL_PORT=8473 "FWD_FEATURES_OFFLOAD={uso: false}"
ExecStart={ path=/usr/bin/fwd ; argv[]=/usr/bin/fwd run --config CONFIG ; ignore_errors=no }
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter, unlike pytest's."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def config(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node file, and a systemd whose fwd.service reads it as nobody."""
    path = place / "fwd.yaml"
    path.write_text(NODE + "manifests: [m]\n")
    (place / "m").mkdir()
    (place / "m" / "a.yaml").write_text("")
    (place / "answer").write_text(UNIT.replace("CONFIG", str(path)))
    command = place / "systemctl"
    command.write_text(f"#!/bin/sh\n[ $1 = show ] && cat {place}/answer\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setattr(runner, "_SYSTEMD", place)
    return path


def nobody(**environ: str) -> Runner:
    """The unit's user, as unprivileged as can be."""
    return Runner("nobody", ADMIN, NOBODY.pw_uid, NOBODY.pw_gid, (), environ)


def test_unit_tells_user_rights_and_environment(config: Path, place: Path):
    """Of the node file it runs; of another one it says nothing."""
    found = find_runner(config, None)
    assert found is not None
    assert (found.user, found.uid, found.capabilities) == ("nobody", NOBODY.pw_uid, ADMIN)
    assert unit_environ(config) == found.environ == {
        "FDSTORE": "1024", "FWD_TUNNEL_PORT": "8473", "FWD_FEATURES_OFFLOAD": "{uso: false}",
    }  # fmt: skip
    assert find_runner(place / "other.yaml", None) is None
    assert unit_environ(place / "other.yaml") is None


def test_unit_of_a_user_who_is_not_fails(config: Path, place: Path):
    """Before systemd-sysusers has made him."""
    answer = place / "answer"
    answer.write_text(answer.read_text().replace("User=nobody", "User=fwdt-none"))
    found = find_runner(config, None)
    assert found is not None
    finding = doctor.readable(load_node_file(config), found)
    assert finding is not None
    assert finding.level == "fail"
    assert "systemd-sysusers" in finding.text


def test_daemon_without_a_unit_is_known_by_its_process(tmp_path: Path):
    """Its user and what it may; of a process that is no fwd nothing is said."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", "read line; :", "fwd"], user=NOBODY.pw_uid, group=NOBODY.pw_gid,
        extra_groups=[], stdin=subprocess.PIPE, cwd="/",
        env={"FWD_DOOR_SOCKET": "/d", "X_TOKEN": "y"},
    )  # fmt: skip
    try:
        found = find_runner(tmp_path / "n.yaml", process.pid)
    finally:
        process.communicate(b"\n")
    assert found == Runner("nobody", frozenset(), NOBODY.pw_uid, NOBODY.pw_gid, (),
                           {"FWD_DOOR_SOCKET": "/d"})  # fmt: skip
    assert find_runner(tmp_path / "n.yaml", 1) is None
    assert find_runner(tmp_path / "n.yaml", process.pid) is None, "it has gone"


def test_node_file_and_manifests_are_read_as_the_user(config: Path, place: Path):
    """Root reads what the daemon may not."""
    node = load_node_file(config)
    assert doctor.readable(node, nobody()) is None
    for path in (config, place / "m" / "a.yaml"):
        path.chmod(0o600)
        finding = doctor.readable(node, nobody())
        assert finding is not None
        assert finding.level == "fail"
        assert f"user nobody, who runs the daemon, may not read {path}" in finding.text
        path.chmod(0o644)
    place.chmod(0o700)
    finding = doctor.readable(node, nobody())
    assert finding is not None
    assert "and 1 more" in finding.text


def test_tun_device_is_opened_as_the_user(place: Path, monkeypatch: pytest.MonkeyPatch):
    """For reading and writing both."""
    device = place / "tun"
    device.touch()
    monkeypatch.setattr(doctor, "TUN_DEVICE", device)
    monkeypatch.setattr(doctor, "check_tun_device", lambda: None)
    for mode, level in ((0o666, "ok"), (0o644, "fail"), (0o600, "fail")):
        device.chmod(mode)
        assert doctor._tun_device(nobody()).level == level, oct(mode)


@contextmanager
def door(path: Path, *, answers: bool, mode: int = 0o666) -> Iterator[None]:
    """A door's socket, with somebody behind it or nobody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        path.chmod(mode)
        listener.listen(4)
        thread = threading.Thread(target=serve, args=(listener, 0.5))
        if answers:
            thread.start()
        yield
        if answers:
            thread.join(10)
    path.unlink()


def test_rights_are_the_daemons_and_the_doors(place: Path, monkeypatch: pytest.MonkeyPatch):
    """What root has himself proves nothing of the unit."""
    monkeypatch.setattr(doctor, "_DOOR_S", 0.3)
    path = place / "door.sock"
    who = nobody(FWD_DOOR_SOCKET=str(path))
    finding = doctor._rights(who, True)
    assert (finding.level, f"no door at {path}" in finding.text) == ("fail", True)
    assert "systemctl enable --now fwd-door.socket" in finding.text
    monkeypatch.setattr(doctor, "DOOR_SOCKET", str(path))
    finding = doctor._rights(nobody(), False)
    assert (finding.level, "fwd.service starts it" in finding.text) == ("warn", True)
    with door(path, answers=True):
        assert doctor._rights(who, True).level == "ok"
    with door(path, answers=False):
        finding = doctor._rights(who, True)
        assert (finding.level, "nobody answers" in finding.text) == ("fail", True)
    with door(path, answers=True, mode=0o600):
        finding = doctor._rights(who, True)
        assert (finding.level, "may not use the door" in finding.text) == ("fail", True)
    bare = Runner("nobody", frozenset(), NOBODY.pw_uid, NOBODY.pw_gid)
    assert "AmbientCapabilities=CAP_NET_ADMIN" in doctor._rights(bare, False).text
    full = Runner("x", ADMIN | {"cap_sys_admin"}, 5, 5)
    assert doctor._rights(full, False).level == "ok"


def test_what_cannot_be_told_is_said(config: Path, monkeypatch: pytest.MonkeyPatch):
    """A caller who may not become the user is asked to be root."""
    assert refused(Runner("x", ADMIN, -1, -1), "r", [config]) is None
    monkeypatch.setattr(doctor, "refused", lambda *_: None)
    finding = doctor.readable(load_node_file(config), nobody())
    assert finding is not None
    assert (finding.level, "run as root" in finding.text) == ("warn", True)
    assert doctor._tun_device(nobody()).level == "warn"
