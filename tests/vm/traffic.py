"""Stories of packets: a page, iperf3, a service, a policy that says which rule it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.netns.programs import NGINX_CONF
from tests.vm.world import NGINX, status, until, watched

if TYPE_CHECKING:
    from tests.vm.machine import Guest
    from tests.vm.world import World

__all__ = ["pods_talk", "probes", "serve"]

MANIFESTS = "/etc/fwd/examples/manifests"
CLUSTER_IP = "10.96.0.10"
IPERF_S = 8


def _manifests(verb: str, *names: str) -> str:
    files = " ".join(f"-f {MANIFESTS}/{name}.yaml" for name in names)
    return f"fwd {verb} -n kube-system {files}"


def serve(guest: Guest) -> None:
    """Start nginx in its pod, on the service's port and on one that no policy opens."""
    guest.put("/root/web/index.html", b"nginx on node2\n")
    for port in (80, 8080):
        guest.put(f"/root/web/{port}.conf", NGINX_CONF.format(folder="/root/web", port=port)
                  .replace("/pid;", f"/{port}.pid;").encode())  # fmt: skip
        run = f"ip netns exec nginx nginx -e stderr -c /root/web/{port}.conf"
        guest.spawn(f"web{port}", run)
        until(guest, f"ip netns exec nginx ss -ltn | grep -q ':{port} '")


def fetch(guest: Guest, url: str, most_s: int = 20) -> str:
    """Get a page in the pod `curl`."""
    return guest.out(f"ip netns exec curl curl -sS -m {most_s} {url}")


def pods_talk(world: World) -> None:
    """All that goes between the two pods while nothing is disturbed."""
    one, two, check = world.node1, world.node2, world.report.check
    serve(two)
    with check("traffic", "curl in a pod on node1, nginx in a pod on node2", vital=True) as row:
        row.figure = fetch(one, f"http://{NGINX}/")
        assert row.figure == "nginx on node2"
    two.spawn("iperf", "ip netns exec nginx iperf3 -s")
    until(two, "ip netns exec nginx ss -ltn | grep -q ':5201 '")
    for what, option in (("pod to pod", ""), ("the other way", "-R")):
        with check("traffic", f"iperf3, TCP, {what}") as row:
            run = f"ip netns exec curl iperf3 -J -t {IPERF_S} -c {NGINX} {option}"
            end = json.loads(one.out(run))["end"]
            mbit = end["sum_received"]["bits_per_second"] / 1e6
            row.detail = {"mbit_s": mbit, "retransmits": end["sum_sent"].get("retransmits")}
            row.figure = f"{mbit:.0f} Mbit/s, {row.detail['retransmits']} retransmits"
            assert mbit > 1
    two.out("systemctl stop iperf")
    with check("traffic", f"ClusterIP {CLUSTER_IP} of the example manifests") as row:
        world.both(_manifests("apply", "curl_nginx", "services"))
        row.figure = fetch(one, f"http://{CLUSTER_IP}/")
        assert row.figure == "nginx on node2"
    with check("traffic", "the host of node1 reaches the ClusterIP, too") as row:
        row.figure = one.out(f"curl -sS -m 20 http://{CLUSTER_IP}/")
        assert row.figure == "nginx on node2"
    _policy(world)
    world.both(_manifests("delete", "policies", "services"))


def _policy(world: World) -> None:
    """Example policies on both nodes: port 80 from curl and nothing else."""
    one, two, check = world.node1, world.node2, world.report.check
    denied = f"ip netns exec curl curl -sS -m 5 http://{NGINX}:8080/"
    with check("policy", "port 8080 is open before") as row:
        row.figure = one.out(denied)
    world.both(_manifests("apply", "policies"))
    with check("policy", "allowed: port 80") as row:
        row.figure = fetch(one, f"http://{NGINX}/")
    with check("policy", "denied: port 8080; fwd monitor names the rule") as row:
        lines = watched(one, "-t drop -t verdict", lambda: one.run(denied), "xx drop")
        row.detail["lines"] = lines
        (row.figure, *_) = [line.partition("rule: ")[2] for line in lines]
        assert one.run(denied).returncode == 28, "curl must have waited in vain"
    with check("policy", "denied: fwd trace names the rule, exit 10") as row:
        done = one.run(f"fwd trace 'kube-system/curl -> {NGINX}:8080/tcp'")
        assert done.returncode == 10, done.stdout + done.stderr
        row.figure = done.stdout.strip().splitlines()[-1].strip()
    with check("policy", "denied by the receiver: node1's host to nginx:8080") as row:
        ask = f"curl -sS -m 5 http://{NGINX}:8080/"
        lines = watched(two, "-t drop", lambda: one.run(ask), "rule:")
        row.figure = lines[0].partition("rule: ")[2]


def probes(world: World) -> None:
    """What it found out about this machine.

    Linux 6.1 has no USO. And qemu's dgram netdev gives the NIC no checksums to fill in, so that
    the kernel refuses UDP_SEGMENT there (EIO), which the first packets show.
    """
    for guest in world.nodes:
        with world.report.check("kernel", f"{guest.name}: fwd status knows: no USO") as row:
            release = guest.out("uname -r")
            assert release.startswith("6.1."), release
            offload = status(guest)["offload"]
            row.detail = {"kernel": release, "offload": offload}
            row.figure = guest.out("fwd status | grep '^Offloads:'") + f" (Linux {release})"
            assert offload["uso"] is False
            assert all(offload[name] for name in ("csum", "tso", "udp_gro"))
    with world.report.check("kernel", "super-packets come; UDP_SEGMENT, refused, goes") as row:
        text = world.node1.out("curl -s http://127.0.0.1:9962/metrics")
        names = ("tap_rx_super_total", "udp_segment_refused")
        row.detail = {name: _metric(text, name) for name in names}
        row.figure = ", ".join(f"{name} {count:.0f}" for name, count in row.detail.items())
        assert all(row.detail.values()), text
        said = world.node1.out("journalctl -u fwd -o cat --no-pager -p warning")
        assert "offload off" in said, said
        assert "udp_segment" in said, said


def _metric(text: str, name: str) -> float:
    """The sum over a Prometheus metric's samples."""
    lines = [line for line in text.splitlines() if name in line and not line.startswith("#")]
    return sum(float(line.split()[-1]) for line in lines)
