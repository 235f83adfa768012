"""Into namespaces through the door: errands, refusals, and a process that may not enter itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fwd.netlink import door
from fwd.netlink.door import ROUTE, SILENCE_IPV6, TAME_IPV6, check_rights, run_errand, serve
from fwd.netlink.errors import LinkError
from fwd.netlink.netns import open_namespace
from tests.netlink.namespaces import in_netns, ip_json, namespace, open_descriptors

LIMITED = ["setpriv", "--bounding-set", "-all,+net_admin", "--inh-caps", "-all"]
PLUG = """
import asyncio, sys
from ipaddress import ip_address
from fwd.netlink.door import check_rights
from fwd.netlink.link import PodLink, check_pod_namespace, plug
from fwd.netlink.netns import open_namespace
from fwd.netlink.tap import open_tap
check_rights()
fd, tap = open_namespace(sys.argv[1]), open_tap()
link = PodLink("p", bytes.fromhex("020000000001"), (ip_address("10.0.0.2"),),
               (ip_address("10.0.0.1"),), 1400)
asyncio.run(check_pod_namespace(fd, "p", sys.argv[1]))
print(asyncio.run(plug(tap.name, fd, link)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def at(tmp_path, monkeypatch):
    """A door that is answered while the test runs."""
    path = tmp_path / "door.sock"
    monkeypatch.setenv("FWD_DOOR_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        done = threading.Event()

        def answer() -> None:
            while not done.is_set():
                serve(listener, 0.1)

        thread = threading.Thread(target=answer)
        thread.start()
        yield path
        done.set()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def limited(monkeypatch):
    """As if this process had no CAP_SYS_ADMIN."""
    monkeypatch.setattr(door, "_has", lambda name: name != "CAP_SYS_ADMIN")


@pytest.mark.netns
def test_process_without_sys_admin_plugs_a_pod(at):
    """With CAP_NET_ADMIN alone, as in the unit, a pod gets its device, address and route."""
    assert at.is_socket()
    with namespace() as name:
        process = subprocess.Popen(
            [*LIMITED, sys.executable, "-c", PLUG, name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        index = process.stdout.readline().strip()
        try:
            (device,) = [one for one in ip_json(name, "addr") if one["ifname"] == "eth0"]
            assert (str(device["ifindex"]), device["mtu"]) == (index, 1400)
            assert [one["local"] for one in device["addr_info"]] == ["10.0.0.2"]
            assert [row["dst"] for row in ip_json(name, "route")] == ["default", "10.0.0.1"]
            key = "net.ipv6.conf.eth0.disable_ipv6"
            assert in_netns(name, "sysctl", "-n", key).stdout.strip() in {"1", ""}
        finally:
            process.communicate()


@pytest.mark.netns
def test_process_without_sys_admin_cannot_enter_itself(tmp_path):
    """The same without a door fails, and says what is missing."""
    environ = os.environ | {"FWD_DOOR_SOCKET": str(tmp_path / "none")}
    done = subprocess.run(
        [*LIMITED, sys.executable, "-c", PLUG, "none"],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "LinkError: no CAP_SYS_ADMIN: run as root" in done.stderr


@pytest.mark.netns
def test_errands_run_there_and_leave_nothing_open(at, limited):
    """A socket of the pod's namespace comes back; settings are made and give nothing."""
    assert at.is_socket()
    with namespace() as name:
        fd = open_namespace(name)
        make = ["link", "add", "eth0", "type", "veth", "peer", "name", "other"]
        subprocess.run(["ip", "-n", name, *make], check=True)
        before = open_descriptors()
        try:
            for errand, key, value in (
                (SILENCE_IPV6, "disable_ipv6", "1"), (TAME_IPV6, "accept_ra", "0"),
            ):  # fmt: skip
                assert run_errand(fd, errand) is None
                if Path("/proc/sys/net/ipv6").exists():
                    found = in_netns(name, "sysctl", "-n", f"net.ipv6.conf.eth0.{key}")
                    assert found.stdout.strip() == value
            given = run_errand(fd, ROUTE)
            assert given is not None
            assert given.family == socket.AF_NETLINK
            given.close()
            deadline = time.monotonic() + 10  # the door closes its own after it has answered
            while open_descriptors() != before:
                assert time.monotonic() < deadline, f"{open_descriptors()} open, {before} before"
                time.sleep(0.01)
        finally:
            os.close(fd)


@pytest.mark.parametrize(
    "errand",
    [
        "dance", "", "set", "set ipv4/ip_forward 2", "set ipv4/ip_forward 1\n",
        "set ../kernel/core_pattern 1", "set ipv6/conf/../accept_ra 1",
        "set ipv6/conf/./accept_ra 2", "set ipv6/conf/a/b/accept_ra 2",
        "set ipv4/conf/eth0/rp_filter 0", "set ipv4/ip_forward 1 ",
    ],
)  # fmt: skip
def test_other_errands_are_refused(at, limited, errand):
    """Nothing but what is listed is done, whoever asks."""
    assert at.is_socket()
    with (
        Path("/proc/self/ns/net").open("rb") as own,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock,
    ):
        sock.connect(str(at))
        socket.send_fds(sock, [errand.encode() or b"\0"], [own.fileno()])
        assert sock.recv(256) == b"22 the door knows no such errand"


@pytest.mark.netns
def test_what_is_no_namespace_is_refused(at, limited):
    """The kernel's own words reach the client."""
    assert at.is_socket()
    with Path("/dev/null").open("rb") as file, pytest.raises(OSError, match="entering a network"):
        run_errand(file.fileno(), ROUTE)


SET = """
import sys
from pathlib import Path
from fwd.netlink.door import write_sysctl
from fwd.netlink.netns import open_namespace
write_sysctl(Path("/proc/sys/net") / sys.argv[1], sys.argv[2])
"""
READ_ONLY = ["unshare", "--mount", "bash", "-c", 'mount -r --bind /proc/sys /proc/sys; exec "$@"']


@pytest.mark.netns
def test_sysctls_are_set_through_the_door_where_proc_is_read_only(at):
    """As in the unit; the daemon's own namespace, and what is not listed stays refused."""
    assert at.is_socket()
    with namespace() as name:
        inside = [
            "ip",
            "netns",
            "exec",
            name,
            *READ_ONLY,
            "sh",
            *LIMITED,
            sys.executable,
            "-c",
            SET,
        ]
        before = in_netns(name, "cat", "/proc/sys/net/ipv4/ip_forward").stdout.strip()
        value = "0" if before == "1" else "1"
        subprocess.run([*inside, "ipv4/ip_forward", value], check=True)
        assert in_netns(name, "cat", "/proc/sys/net/ipv4/ip_forward").stdout.strip() == value
        command = [*inside, "ipv4/conf/lo/rp_filter", "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "Read-only file system" in done.stderr.splitlines()[-1]


def test_door_that_nobody_answers_is_an_error(tmp_path, monkeypatch, limited):
    """A socket without its service costs a moment, not the daemon."""
    monkeypatch.setattr(door, "_TIMEOUT_S", 0.05)
    monkeypatch.setenv("FWD_DOOR_SOCKET", str(tmp_path / "door.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "door.sock"))
        listener.listen()
        with Path("/dev/null").open("rb") as file, pytest.raises(OSError, match="does not answer"):
            run_errand(file.fileno(), ROUTE)
        monkeypatch.setattr(door, "_START_S", 0.05)
        with pytest.raises(LinkError, match="the door at"):
            check_rights()


def test_start_waits_for_a_door_that_is_slow(tmp_path, monkeypatch, limited):
    """Systemd listens before the door runs; at boot that takes longer than an errand may."""
    monkeypatch.setattr(door, "_TIMEOUT_S", 0.2)
    monkeypatch.setenv("FWD_DOOR_SOCKET", str(tmp_path / "door.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "door.sock"))
        listener.listen()
        late = threading.Timer(0.6, serve, (listener, 0.1))
        late.start()
        check_rights()
        late.join(10)


def test_client_that_breaks_off_does_no_harm(at, limited):
    """The next one is served."""
    for _ in range(3):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(at))
    check_rights()


@pytest.mark.parametrize(
    ("lacking", "text"),
    [
        ({"CAP_NET_ADMIN"}, "no CAP_NET_ADMIN: run as root"),
        ({"CAP_SYS_ADMIN"}, "no CAP_SYS_ADMIN: run as root, .*fwd-door.socket"),
        ({"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}, "no CAP_NET_ADMIN and no CAP_SYS_ADMIN"),
    ],
)
def test_missing_rights_are_named(monkeypatch, tmp_path, lacking, text):
    """With what would give them."""
    monkeypatch.setattr(door, "_has", lambda name: name not in lacking)
    monkeypatch.setenv("FWD_DOOR_SOCKET", str(tmp_path / "none"))
    with pytest.raises(LinkError, match=text):
        check_rights()
