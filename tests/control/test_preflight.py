"""What is proven before a start, and what is said when it does not hold."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from fwd.config.load import ConfigError, parse_node_text
from fwd.control import preflight
from fwd.control.preflight import check_start, has_host, narrow_ways, pod_mtu
from fwd.netlink.errors import LinkError
from fwd.netlink.link import Device
from fwd.netlink.netns import open_namespace
from fwd.netlink.shim import in_namespace
from tests.netlink.namespaces import namespace, open_descriptors

ETH = Device("eth0", 2, 1500, bytes(6))


def node(*endpoints: str, ip: str = "127.0.0.1", tunnel: str = "{port: 0}", peers: str = "[]"):
    """A node on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        tunnel = tunnel.replace("port: 0", f"port: {free.getsockname()[1]}")
    rows = "".join(f"\n  - {row}" for row in endpoints)
    text = f"node: {{name: n, ip: {ip}, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}}\n"
    text += f"tunnel: {tunnel}\nendpoints:{rows or ' []'}\npeers: {peers}\n"
    return parse_node_text(text, Path("n.yaml"))


def endpoint(name: str, number: int, netns: str | None) -> str:
    """An endpoint's row."""
    where = f", netns: {netns}" if netns else ""
    return f"{{name: {name}, id: {number}, identity: 300, ip: 10.0.0.{number}{where}}}"


@pytest.mark.parametrize(
    ("tunnel", "device", "mtu"),
    [
        ("{mtu: auto}", ETH, 1450),
        ("{mtu: 1400}", ETH, 1400),
        ("{protocol: disabled}", ETH, 1500),
        ("{}", replace(ETH, mtu=65536), 65485),
        ("{}", replace(ETH, mtu=626), 576),
    ],
)
def test_pod_mtu_is_the_underlays_less_the_overhead(tunnel, device, mtu):
    """Or as written; native routing has no overhead."""
    assert pod_mtu(node(tunnel=tunnel), device) == mtu


def test_underlay_too_small_for_pods_is_refused():
    """The text says which MTU the device needs."""
    with pytest.raises(ConfigError, match=r"n\.yaml:2: tunnel\.mtu: .*mtu 626` or more"):
        pod_mtu(node(), replace(ETH, mtu=625))


def test_ways_too_narrow_for_full_packets_are_told(monkeypatch):
    """One line a peer, with the MTU to write; silence without a tunnel or without a way."""
    ways = {"192.0.2.2": 1500, "192.0.2.3": 1450, "192.0.2.4": None}
    monkeypatch.setattr("fwd.control.preflight.route_mtu", lambda _own, peer: ways[str(peer)])
    peers = ", ".join(f"{{name: p{ip[-1]}, ip: {ip}}}" for ip in ways)
    (warning,) = narrow_ways(node(peers=f"[{peers}]"), 1450)
    assert "peer p3 (192.0.2.3) takes 1450 bytes" in warning
    assert warning.endswith("write tunnel.mtu: 1400")
    assert not [*narrow_ways(node(peers=f"[{peers}]", tunnel="{protocol: disabled}"), 1500)]


@pytest.mark.netns
@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([endpoint("a", 5, None)], r"n\.yaml:4: endpoint a: netns is missing"),
        (
            [endpoint("a", 5, "{ns}"), endpoint("b", 6, "fwdt-none")],
            r"n\.yaml:5: endpoint b: .*create it with `ip netns add fwdt-none`",
        ),
        (
            [endpoint("a", 5, "{ns}"), endpoint("b", 6, "/run/netns/{ns}")],
            r"n\.yaml:5: endpoint b: namespace \S+ is a's already",
        ),
    ],
)
def test_endpoint_without_a_namespace_of_its_own_is_refused(rows, text):
    """File and line of the endpoint; no descriptor stays open."""
    with namespace() as name:
        file = node(*(row.replace("{ns}", name) for row in rows))
        before = open_descriptors()
        with pytest.raises(ConfigError, match=text):
            uvloop.run(check_start(file))
        assert open_descriptors() == before


@pytest.mark.netns
def test_good_start_is_accepted_and_leaves_nothing():
    """The underlay's device is the answer."""
    with namespace() as name:
        before = open_descriptors()
        device = uvloop.run(check_start(node(endpoint("a", 5, name))))
        assert device.name == "lo"
        assert open_descriptors() == before


@pytest.mark.netns
def test_address_of_no_device_is_refused():
    """node.ip with its line and the command that adds it."""
    with pytest.raises(ConfigError, match=r"n\.yaml:1: node\.ip: 192\.0\.2\.7 .*ip addr add"):
        uvloop.run(check_start(node(ip="192.0.2.7")))


@pytest.mark.netns
def test_taken_tunnel_port_is_refused():
    """Line of the tunnel section, name of the owner."""
    file = node()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", file.tunnel.port))
        with pytest.raises(ConfigError, match=r"n\.yaml:2: tunnel: .*is owned by .*\(pid"):
            uvloop.run(check_start(file))


def test_missing_capabilities_are_named(monkeypatch):
    """Before anything else is tried."""
    status = "Name:\tfwd\nCapEff:\t0000000000001000\n"
    monkeypatch.setattr(Path, "read_text", lambda _path: status)
    with pytest.raises(LinkError, match="no CAP_SYS_ADMIN: run as root"):
        uvloop.run(check_start(node()))


@pytest.mark.netns
def test_host_device_that_cannot_be_made_is_refused(monkeypatch):
    """A taken name, no nft, no router to masquerade behind: file and line, before anything is."""

    def check(file):
        with namespace() as name:
            subprocess.run(
                ["ip", "-n", name, "link", "add", taken, "type", "veth", "peer", "name", "x"],
                check=True,
            )
            fd = open_namespace(name)
            try:
                in_namespace(fd, lambda: asyncio.run(preflight.check_host(file, ETH)))
            finally:
                os.close(fd)

    taken = "cilium_host"
    with pytest.raises(ConfigError, match=r"n\.yaml:1: device cilium_host exists already"):
        check(node())
    taken = "other"
    check(node())
    masquerading = node(tunnel="{port: 0}\nfeatures: {masquerade: true}")
    check(masquerading)
    monkeypatch.setattr("fwd.netlink.nft.shutil.which", lambda _name: None)
    with pytest.raises(ConfigError, match=r"n\.yaml:1: nft is missing"):
        check(masquerading)
    text = "node: {name: n, ip: 192.0.2.1, ip6: '2001:db8::7'}\n"
    absent = r"n\.yaml:1: node\.ip6: 2001:db8::7 is on no device of this host"
    with pytest.raises(ConfigError, match=absent):
        check(parse_node_text(text, Path("n.yaml")))
    text = "node: {name: n, ip: 192.0.2.1}\nfeatures: {masquerade: true}\n"
    with pytest.raises(ConfigError, match=r"n\.yaml:1: features\.masquerade: .*router_ip"):
        check(parse_node_text(text, Path("n.yaml")))


def test_only_a_node_on_loopback_has_no_host():
    """Several may share it."""
    assert not has_host(replace(ETH, name="lo"))
    assert has_host(ETH)


@pytest.mark.netns
def test_services_that_cannot_be_reached_from_outside_are_refused(monkeypatch):
    """No router to hide behind, no Ethernet, a taken name, a strict filter, no nft."""
    text = "{port: 0}\nfeatures: {nodeport: true}"
    file = node(tunnel=text)

    def check(name: str, file=file, uplink=ETH) -> None:
        fd = open_namespace(name)
        try:
            in_namespace(fd, lambda: asyncio.run(preflight.check_host(file, uplink)))
        finally:
            os.close(fd)

    with namespace() as name:
        check(name)
        routerless = file.node.model_copy(update={"router_ip": ()})
        with pytest.raises(
            ConfigError, match=r"n\.yaml:3: features\.nodeport: .*router_ip, set it"
        ):
            check(name, file.model_copy(update={"node": routerless}))
        with pytest.raises(ConfigError, match=r"n\.yaml:3: features\.nodeport: wg0 is no Ethernet"):
            check(name, uplink=replace(ETH, name="wg0", mac=b""))
        subprocess.run(["ip", "netns", "exec", name, "sysctl", "-qw",
                        "net.ipv4.conf.all.rp_filter=1"], check=True)  # fmt: skip
        with pytest.raises(ConfigError, match=r"n\.yaml:3: .*rp_filter is 1"):
            check(name)
        subprocess.run(["ip", "-n", name, "link", "add", "cilium_net", "type", "veth",
                        "peer", "name", "x"], check=True)  # fmt: skip
        with pytest.raises(ConfigError, match=r"n\.yaml:3: .*device cilium_net exists already"):
            check(name)
        monkeypatch.setattr("fwd.netlink.nft.shutil.which", lambda _name: None)
        with pytest.raises(ConfigError, match=r"n\.yaml:3: features\.nodeport: nft is missing"):
            check(name)
