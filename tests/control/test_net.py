"""cilium_net over a daemon's life, in a namespace of its own and with a pump that only writes."""

from __future__ import annotations

import asyncio
import os
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest

from fwd.config.load import ConfigError, parse_node_text
from fwd.control.compile import router_mac
from fwd.control.net import NetDevice, plan_net
from fwd.datapath.packet import PORT_NETDEV
from fwd.netlink.link import Device
from fwd.netlink.outside import NET_DEVICE, TABLE
from fwd.netlink.shim import in_namespace
from tests.control.test_endpoints import Ports
from tests.netlink.namespaces import in_netns, ip_json, namespace, open_descriptors

UPLINK = Device("eth0", 2, 1500, bytes(6))
NEAR = (
    "{name: near, frontend: 192.0.2.1, port: 30080, flags: [node_port, routable], backends: [%s]}"
)
BACKENDS = ", ".join(
    f"{{ip: {ip}, port: 8080}}" for ip in ("10.0.1.9", "10.0.2.9", "192.0.2.1", "203.0.113.5")
)
MORE = "{name: more, frontend: 198.51.100.1, port: 53, proto: udp, flags: [external_ip, routable]}"
CLOSED = (
    "{name: cluster, frontend: 10.96.0.1, port: 80, backends: [{ip: 203.0.113.7, port: 80}]}",
    "{name: six, frontend: '2001:db8::1', port: 80, flags: [external_ip, routable]}",
    "{name: two, frontend: 198.51.100.2, port: 80, flags: [routable, two_scopes]}",
    "{name: two, frontend: 198.51.100.2, port: 80, flags: [routable, two_scopes], %s}",
)


INTERNAL = "scope: internal, backends: [{ip: 203.0.113.8, port: 80}]"


def node(*services: str, nodeport: bool = True):
    """A node with one pod and these services."""
    rows = "".join(f"  - {row}\n" for row in services)
    text = (
        "node: {name: n, ip: 192.0.2.1, pod_cidr: 10.0.1.0/24, router_ip: 10.0.1.1}\n"
        "peers: [{name: p, ip: 192.0.2.2, pod_cidr: [10.0.2.0/24, 'fd00:2::/64']}]\n"
        f"features: {{nodeport: {str(nodeport).lower()}}}\n"
        "endpoints: [{name: a, id: 10, identity: 300, ip: 10.0.1.9}]\n"
        f"services:\n{rows or '  []'}\n"
    )
    return parse_node_text(text, Path("n.yaml"))


def test_plan_has_what_is_routable_from_outside_and_who_answers_from_elsewhere():
    """No ClusterIP, no IPv6, no internal scope; no answers of pods here or of the node itself."""
    last = CLOSED[-1] % INTERNAL
    file = node(NEAR % BACKENDS, MORE, *CLOSED[:-1], last)
    plan = plan_net(file, UPLINK)
    assert plan is not None
    assert plan.steering.frontends == {
        (IPv4Address("192.0.2.1"), "tcp", 30080),
        (IPv4Address("198.51.100.1"), "udp", 53),
        (IPv4Address("198.51.100.2"), "tcp", 80),
    }
    assert plan.steering.answers == {
        (IPv4Address("10.0.2.9"), "tcp", 8080),
        (IPv4Address("203.0.113.5"), "tcp", 8080),
    }
    assert plan.steering.inside == {ip_network("10.0.1.0/24"), ip_network("10.0.2.0/24")}
    native = file.model_copy(
        update={"tunnel": file.tunnel.model_copy(update={"protocol": "disabled"})}
    )
    other = plan_net(native, UPLINK)
    assert other is not None
    assert other.steering.inside == {ip_network("10.0.1.0/24")}
    assert (plan.shape.mac, plan.shape.mtu) == (router_mac(file), 1500)
    assert plan_net(node(NEAR % BACKENDS, nodeport=False), UPLINK) is None


def steered(name: str) -> str:
    """What the namespace's nftables have of ours."""
    rules = in_netns(name, "nft", "list", "ruleset").stdout
    return rules if TABLE in rules else ""


def within(main):
    """Run a coroutine function in a fresh namespace with an uplink; nothing may stay."""
    with namespace() as name:
        in_netns(name, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire")
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
        before = open_descriptors()
        try:
            in_namespace(fd, lambda: asyncio.run(main(name)))
            assert open_descriptors() == before
            assert {row["ifname"] for row in ip_json(name, "link", "show")} == {
                "lo", "eth0", "wire",
            }  # fmt: skip
            assert in_netns(name, "nft", "list", "ruleset").stdout == ""
        finally:
            os.close(fd)


@pytest.mark.netns
def test_a_change_steers_both_until_it_is_decided():
    """Prepare adds, commit removes what went, rollback what came; close leaves nothing."""

    async def main(name):
        ports = Ports()
        net = NetDevice(ports, UPLINK)
        assert net.status() is None
        await net.prepare(node(NEAR % ""))
        assert (ports.watched, "30080" in steered(name)) == (set(), True)
        await net.commit()
        assert ports.watched == {PORT_NETDEV}
        await net.prepare(node(MORE))
        assert "30080" in steered(name)
        assert "198.51.100.1" in steered(name)
        await net.rollback()
        assert "198.51.100.1" not in steered(name)
        await net.prepare(node(MORE))
        await net.commit()
        assert "30080" not in steered(name)
        assert net.status() == {"device": NET_DEVICE, "uplink": "eth0", "frontends": 1}
        await net.close()
        assert (ports.watched, net.status()) == (set(), None)

    within(main)


@pytest.mark.netns
def test_the_switch_works_in_a_reload():
    """Off closes all, on makes it again; a rollback of on leaves nothing, one of off everything."""

    async def main(name):
        ports = Ports()
        net = NetDevice(ports, UPLINK)
        off, on = node(nodeport=False), node(NEAR % "")
        await net.prepare(off)
        await net.commit()
        await net.prepare(on)
        await net.rollback()
        assert (ports.watched, steered(name), net.status()) == (set(), "", None)
        await net.prepare(on)
        await net.commit()
        await net.prepare(off)
        assert "30080" in steered(name)
        await net.rollback()
        assert "30080" in steered(name)
        await net.prepare(off)
        await net.commit()
        assert (ports.watched, steered(name), net.status()) == (set(), "", None)
        await net.prepare(on)
        await net.commit()
        await net.close()

    within(main)


@pytest.mark.netns
def test_a_first_start_that_fails_leaves_nothing():
    """No uplink has such a name: file and line, the step and nft's own words."""

    async def main(_name):
        net = NetDevice(Ports(), Device("a-name-too-long-for-a-device", 9, 1500, bytes(6)))
        with pytest.raises(
            ConfigError, match=r"n\.yaml:3: steering 1 frontends from a-name-too-long"
        ):
            await net.prepare(node(NEAR % ""))

    within(main)


@pytest.mark.netns
def test_a_name_that_is_taken_is_found_out_when_a_reload_wants_it():
    """At start that is the preflight's business."""

    async def main(name):
        net = NetDevice(Ports(), UPLINK)
        await net.prepare(node(nodeport=False))
        await net.commit()
        in_netns(name, "ip", "link", "add", NET_DEVICE, "type", "veth", "peer", "name", "x")
        with pytest.raises(ConfigError, match=r"n\.yaml:3: .*device cilium_net exists already"):
            await net.prepare(node(NEAR % ""))
        in_netns(name, "ip", "link", "del", NET_DEVICE)

    within(main)


@pytest.mark.netns
@pytest.mark.parametrize("nodeport", [True, False])
def test_what_a_killed_daemon_left_is_replaced_or_removed(nodeport):
    """Its tables are there, its device is not."""

    async def main(name):
        killed = NetDevice(Ports(), UPLINK)
        await killed.prepare(node(NEAR % ""))
        killed.tap.close()  # as the kernel does
        net = NetDevice(Ports(), UPLINK)
        await net.prepare(node(MORE, nodeport=nodeport))
        await net.commit()
        assert "30080" not in steered(name)
        assert ("198.51.100.1" in steered(name)) is nodeport
        await net.close()

    within(main)


@pytest.mark.netns
def test_what_was_deleted_under_it_is_made_again_by_a_reload():
    """The device, or the rules alone."""

    async def main(name):
        ports = Ports()
        net = NetDevice(ports, UPLINK)
        file = node(NEAR % "")
        await net.prepare(file)
        await net.commit()
        in_netns(name, "ip", "link", "del", NET_DEVICE)
        net.mark_gone()
        ports.watched.clear()  # the pump has let go of it
        assert net.status() is None
        for _ in range(2):
            await net.prepare(file)
            await net.commit()
            assert f'fwd to "{NET_DEVICE}"' in steered(name)
            assert ports.watched == {PORT_NETDEV}
            in_netns(name, "nft", "flush", "ruleset")
        await net.prepare(file)
        await net.commit()
        assert "30080" in steered(name)
        in_netns(name, "ip", "link", "del", NET_DEVICE)
        net.mark_gone()
        ports.watched.clear()
        await net.close()  # without a device, and with rules that lead nowhere

    within(main)
