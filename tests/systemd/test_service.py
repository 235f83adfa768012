"""The units under a real systemd, with all their hardening, as a user of the package has them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.systemd.machine import Machine, machine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netns, pytest.mark.slow]


@pytest.fixture(scope="module")
def host(tree) -> Iterator[Machine]:
    """A machine with the package, node1 of the seed's world, and its pod's namespace."""
    try:
        booted = machine(tree)
        one = booted.__enter__()
    except OSError as error:
        pytest.skip(f"systemd cannot be PID 1 here: {error}")
    try:
        one.out("dpkg -i /fwd.deb")
        one.out("cp /etc/fwd/examples/node1.yaml /etc/fwd/fwd.yaml && ip netns add curl")
        one.out("systemctl enable --now fwd")
        yield one
    finally:
        booted.__exit__(None, None, None)


def show(host: Machine, name: str) -> str:
    """A property of the unit."""
    return host.out(f"systemctl show -P {name} fwd.service")


def test_unit_serves_a_pod_with_one_capability(host):
    """The pod reaches its gateway; the process has CAP_NET_ADMIN, a filter, and its own user."""
    host.out("fwd status --wait 10 && ip netns exec curl ping -c 1 -W 2 10.244.0.150")
    pid = show(host, "MainPID")
    status = host.out(f"cat /proc/{pid}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0000000000001000"}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert host.out(f"stat -c %U /proc/{pid}") == "fwd"
    assert show(host, "StatusText") == "node1: 1 of 1 endpoints ready, 1 peers, revision 1"


def test_reload_waits_and_fails_when_it_was_refused(host):
    """`systemctl reload` has the daemon's answer, and a refused one changes nothing."""
    before = json.loads(host.out("fwd status -o json"))["revision"]
    host.out("systemctl reload fwd")
    assert json.loads(host.out("fwd status -o json"))["revision"] == before + 1
    host.out("echo 'frob: 1' > /etc/fwd/fwd.yaml.d/bad.yaml")
    try:
        assert host.run("systemctl reload fwd").returncode != 0
        said = host.out("journalctl -u fwd --no-pager -n 5")
        assert "nothing was changed: /etc/fwd/fwd.yaml.d/bad.yaml:1: frob: unknown key" in said
        assert show(host, "ActiveState") == "active"
        assert json.loads(host.out("fwd status -o json"))["revision"] == before + 1
    finally:
        host.out("rm /etc/fwd/fwd.yaml.d/bad.yaml")


def test_journal_knows_how_bad_a_line_is(host):
    """A device that goes is a warning, `started` is not."""
    host.out("ip netns exec curl ip link del eth0; sleep 1")
    warnings = host.out("journalctl -u fwd -p warning --no-pager -o cat")
    assert "device gone" in warnings
    assert "event='started'" not in warnings
    host.out("systemctl reload fwd && fwd status --wait 10")


def test_masquerading_and_nodeport_work_with_a_read_only_proc(host):
    """Nft runs under the unit's capability; sysctls go through the door."""
    host.out("echo 0 > /proc/sys/net/ipv4/ip_forward")
    text = """features: {masquerade: true, nodeport: true}
services:
  - {name: s, frontend: 192.168.56.105, port: 30080, flags: [routable, node_port],
     backends: [{ip: 10.244.0.108, port: 80}]}
"""
    host.out(f"cat > /etc/fwd/fwd.yaml.d/outside.yaml <<'EOF'\n{text}EOF")
    host.out("systemctl reload fwd")
    assert "masquerade" in host.out("nft list table ip fwd_masquerade")
    assert "30080" in host.out("nft list table netdev fwd_outside")
    assert host.out("cat /proc/sys/net/ipv4/ip_forward") == "1"
    conf = "/proc/sys/net/ipv4/conf/cilium_net"
    keys = ("accept_local", "rp_filter", "forwarding")
    assert [host.out(f"cat {conf}/{key}") for key in keys] == ["1", "0", "1"]
    host.out("rm /etc/fwd/fwd.yaml.d/outside.yaml && systemctl reload fwd")
    assert "fwd_" not in host.out("nft list tables")
    assert host.out("cat /proc/sys/net/ipv4/ip_forward") == "0"


def test_clients_wait_while_the_daemon_restarts(host):
    """The API's socket is systemd's: whoever asks meanwhile gets an answer."""
    assert host.out("systemctl restart --no-block fwd && fwd status --wait 20 --brief") == "OK"
    assert host.out("stat -c '%a %U:%G' /run/fwd/fwd.sock") == "660 root:fwd"
    assert host.out("stat -c '%a %U:%G' /run/fwd/door.sock") == "600 fwd:fwd"


def test_killed_and_stopped_daemons_come_back(host):
    """SIGKILL at once; one that hangs is found by the watchdog."""
    before = int(show(host, "NRestarts"))
    host.out("kill -KILL $(systemctl show -P MainPID fwd); sleep 0.5; fwd status --wait 20 --brief")
    assert int(show(host, "NRestarts")) == before + 1
    host.out("kill -STOP $(systemctl show -P MainPID fwd); sleep 11; fwd status --wait 20 --brief")
    assert int(show(host, "NRestarts")) == before + 2
    assert "watchdog" in host.out("journalctl --no-pager -n 30 -o cat _PID=1").lower()


def test_restart_without_a_door_is_no_hang(host):
    """The door is stopped for longer than the watchdog waits: no restart, and the pod's network."""
    host.out("systemctl restart fwd && fwd status --wait 20 --brief")  # the door has been asked
    before, door = int(show(host, "NRestarts")), host.out("systemctl show -P MainPID fwd-door")
    host.out(f"kill -STOP {door}; systemctl restart fwd")
    try:
        pinged = host.out("ip netns exec curl ping -c 65 -i 0.2 -W 2 -q 10.244.0.150")
        assert " 65 received" in pinged
        assert int(show(host, "NRestarts")) == before
        assert show(host, "StatusText").startswith(
            "forwarding with the tables of the daemon before"
        )
    finally:
        host.out(f"kill -CONT {door}")
    assert host.out("fwd status --wait 20 --brief") == "OK"
    assert int(show(host, "NRestarts")) == before


def test_restart_with_a_wrong_file_stays_up_and_reload_completes_it(host):
    """One process, one line, the pod's network; `systemctl reload` fails until it is right."""
    bad = "/etc/fwd/fwd.yaml.d/bad.yaml"
    host.out(f"echo 'frob: 1' > {bad}; systemctl restart fwd")
    try:
        pid = show(host, "MainPID")
        pinged = host.out("ip netns exec curl ping -c 60 -i 0.2 -W 2 -q 10.244.0.150")
        assert " 60 received" in pinged
        assert host.run("systemctl reload fwd").returncode != 0
        reason = f"{bad}:1: frob: unknown key"
        assert show(host, "StatusText").startswith("node file refused, packets go on by")
        assert reason in show(host, "StatusText")
        assert reason in host.run("fwd status").stderr
        said = host.out(f"journalctl -u fwd _PID={pid} --no-pager -p err -o cat")
        assert (said.count(reason), show(host, "ActiveState")) == (1, "active")
    finally:
        host.out(f"rm {bad}")
    host.out("systemctl reload fwd")
    assert host.out("fwd status --wait 20 --brief") == "OK"
    assert show(host, "MainPID") == pid
    assert show(host, "StatusText").startswith("node1: 1 of 1 endpoints ready")


def test_first_start_with_a_wrong_file_is_not_tried_again(host):
    """Exit code 2, which RestartPreventExitStatus names: failed until a person starts it."""
    bad = "/etc/fwd/fwd.yaml.d/bad.yaml"
    host.out(f"systemctl stop fwd.socket fwd; echo 'frob: 1' > {bad}")
    try:
        assert host.run("systemctl start fwd").returncode != 0
        host.out("sleep 3")
        states = [show(host, name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")]
        assert states == ["failed", "2", "0"]
    finally:
        host.out(f"rm {bad}")
    host.out("systemctl start fwd && fwd status --wait 20 --brief")


def test_restarts_keep_the_pods_device_and_the_tables(host):
    """`systemctl restart` and SIGKILL: the same eth0, the same descriptors, tables taken over."""

    def ifindex() -> int:
        rows = json.loads(host.out("ip netns exec curl ip -j link show eth0"))
        return int(rows[0]["ifindex"])

    before, kept = ifindex(), int(show(host, "NFileDescriptorStore"))
    assert kept >= 4, "tables, socket, cilium_host and the pod's TAP"
    host.out("systemctl restart fwd && fwd status --wait 20 --brief")
    assert ifindex() == before
    host.out("kill -KILL $(systemctl show -P MainPID fwd); sleep 0.5; fwd status --wait 20 --brief")
    assert ifindex() == before
    assert int(show(host, "NFileDescriptorStore")) == kept
    said = host.out("journalctl -u fwd --no-pager -n 20 -o cat")
    assert said.count("tables taken over") >= 2
    assert said.count(" half-written entries dropped") == said.count("'0 half-written entries ")
    assert "device dropped" not in said


def test_stop_takes_the_pods_device_down(host):
    """The store is emptied by a stop; the next start is a first one."""
    host.out("systemctl stop fwd.socket fwd")
    assert "eth0" not in host.out("ip netns exec curl ip -br link")
    assert show(host, "NFileDescriptorStore") == "0"
    host.out("systemctl start fwd.socket fwd && fwd status --wait 20 --brief")
    assert "eth0" in host.out("ip netns exec curl ip -br link")


def test_doctor_finds_nothing_wrong_in_the_unit(host):
    """Warnings at most: the peer is not there."""
    found = json.loads(host.out("fwd doctor -o json"))["findings"]
    assert [one["what"] for one in found if one["level"] == "fail"] == []
    assert len(found) > 8


@pytest.mark.parametrize(
    ("broken", "mended", "what"),
    [
        ("systemctl stop fwd-door.socket fwd-door", "systemctl start fwd-door.socket", "rights"),
        ("chmod 600 /dev/net/tun", "chmod 666 /dev/net/tun", "tun device"),
        ("chmod 600 /etc/fwd/fwd.yaml", "chmod 644 /etc/fwd/fwd.yaml", "node file"),
    ],
)
def test_doctor_judges_the_units_user_and_not_root(host, broken, mended, what):
    """Each keeps the unit from starting or reloading, and none of them hinders root."""
    host.out(broken)
    try:
        ran = host.run("fwd doctor -o json")
    finally:
        host.out(mended)
    findings = json.loads(ran.stdout)["findings"]
    assert (ran.returncode, [one["what"] for one in findings if one["level"] == "fail"]) == (
        1, [what],
    )  # fmt: skip
    assert host.run("fwd doctor").returncode == 0


def test_variables_of_the_unit_are_the_ones_that_count(host):
    """A drop-in's make no difference to what runs, for diff and doctor, with and without it."""
    host.out("mkdir -p /etc/systemd/system/fwd.service.d")
    host.out("printf '[Service]\\nEnvironment=FWD_TUNNEL_PORT=8473\\n' "
             "> /etc/systemd/system/fwd.service.d/port.conf")  # fmt: skip
    host.out("systemctl daemon-reload && systemctl restart fwd && fwd status --wait 20 --brief")
    try:
        assert host.out("fwd config diff") == ""
        assert "UDP 8473 is the daemon's" in host.out("fwd doctor")
        assert "tunnel.port: 8473" in host.out("fwd config show")
    finally:
        host.out("rm -r /etc/systemd/system/fwd.service.d && systemctl daemon-reload")
        host.out("systemctl restart fwd && fwd status --wait 20 --brief")


def test_removing_the_package_stops_everything(host):
    """No daemon, no device, no unit, no user."""
    host.out("dpkg -P fwd")
    assert host.run("pgrep -f 'fwd run'").returncode == 1
    assert host.out("ip netns exec curl ip -br link").startswith("lo ")
    assert host.run("systemctl list-unit-files --no-legend 'fwd*'").stdout == ""
    assert host.run("getent passwd fwd").returncode == 2
