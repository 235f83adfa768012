"""Node file to rows: the content every table must have."""

from __future__ import annotations

from ipaddress import ip_address as ip
from ipaddress import ip_network as net
from pathlib import Path

import pytest

from fwd.config.load import parse_node_text
from fwd.control.compile import compile_world
from fwd.control.world import Link
from fwd.model.rows import IpcacheRow, LxcRow, PeerRow
from tests.control.worlds import node_file

N2, OLD = ip("192.0.2.2"), ip("192.0.2.3")


def by_prefix(world):
    """The world's ipcache as prefix text to row."""
    assert len({row.prefix for row in world.ipcache}) == len(world.ipcache)
    return {str(row.prefix): row for row in world.ipcache}


def test_ipcache_has_the_rows_the_datapath_cannot_do_without():
    """World, host, remote nodes, peers' pods and local pods are all in the ipcache."""
    rows = by_prefix(compile_world(node_file()))
    assert {prefix: (row.identity, row.tunnel_endpoint) for prefix, row in rows.items()} == {
        "0.0.0.0/0": (2, None),
        "::/0": (2, None),
        "192.0.2.1/32": (1, None),
        "10.0.0.1/32": (1, None),
        "fd00::1/128": (1, None),
        "192.0.2.2/32": (6, None),
        "192.0.2.3/32": (6, None),
        "10.0.2.0/24": (2, N2),
        "10.0.3.0/24": (300, OLD),
        "10.0.0.10/32": (100, None),
        "fd00::10/128": (100, None),
    }


def test_raw_ipcache_rows_override_the_same_prefix():
    """A written row beats the implied one, and only that one."""
    rows = by_prefix(
        compile_world(
            node_file(
                ipcache="""\
                - {prefix: 0.0.0.0/0, identity: 7, flags: [skip_tunnel]}
                - {prefix: 10.0.2.5/32, identity: 200, tunnel_endpoint: 192.0.2.2}
                """
            )
        )
    )
    assert rows["0.0.0.0/0"] == IpcacheRow(net("0.0.0.0/0"), 7, skip_tunnel=True)
    assert rows["10.0.2.5/32"] == IpcacheRow(net("10.0.2.5/32"), 200, tunnel_endpoint=N2)
    assert len(rows) == 12


def test_tunnel_endpoint_of_this_node_is_none():
    """A row that says "behind this node" is a local one (reference 2.1)."""
    rows = by_prefix(
        compile_world(
            node_file(ipcache="- {prefix: 10.0.0.77, identity: 200, tunnel_endpoint: 192.0.2.1}")
        )
    )
    assert rows["10.0.0.77/32"].tunnel_endpoint is None


def test_lxc_has_every_local_address_and_marks_the_node_s_own():
    """Node and router addresses are HOST rows, the router's marked, pods lead to their id."""
    assert set(compile_world(node_file()).lxc) == {
        LxcRow(ip("192.0.2.1"), 0, host=True),
        LxcRow(ip("10.0.0.1"), 0, host=True, router=True),
        LxcRow(ip("fd00::1"), 0, host=True, router=True),
        LxcRow(ip("10.0.0.10"), 10),
        LxcRow(ip("fd00::10"), 10),
    }


def test_peers_carry_their_fixed_vni_or_none():
    """A plain VXLAN peer has its VNI and identity; another peer's VNI is the identity."""
    assert compile_world(node_file()).peers == (PeerRow(N2), PeerRow(OLD, vni=42, identity=300))


def test_kernel_s_ifindex_beats_the_file_s():
    """A link overrides the ifindex; endpoints without one keep the file's."""
    node = node_file()
    assert compile_world(node).endpoints[0].ifindex == 7
    assert compile_world(node, {"b": Link(99)}).endpoints[0].ifindex == 7
    assert compile_world(node, {"a": Link(99)}).endpoints[0].ifindex == 99


def test_settings_say_what_the_file_says():
    """Every switch and lifetime of the file arrives in the settings."""
    settings = compile_world(
        node_file(
            tunnel="{protocol: disabled, port: 4789, verify: {peer: false, source: false}}",
            features="{fragments: false, icmp_frag_needed: false, vlan_allowed: [7, 4094]}",
            replace=(
                "conntrack: {capacity: {tcp: 256, any: 256}}",
                (
                    "conntrack: {lifetimes_s: {tcp: 1, tcp_syn: 2, tcp_close: 3, any: 4, "
                    "service_tcp: 5, service_any: 6}}"
                ),
            ),
        )
    ).settings
    assert not any(
        (
            settings.tunnel,
            settings.verify_peer,
            settings.verify_source,
            settings.fragments,
            settings.icmp_frag_needed,
        )
    )
    assert (settings.tunnel_port, settings.vlan_allowed) == (4789, {7, 4094})
    lifetimes = (settings.ct_tcp_s, settings.ct_tcp_syn_s, settings.ct_tcp_close_s)
    assert lifetimes == (1, 2, 3)
    assert (settings.ct_any_s, settings.ct_service_tcp_s, settings.ct_service_any_s) == (4, 5, 6)
    assert settings.router_mac == settings.host_mac == bytes.fromhex("020000000001")


def test_what_senders_are_told_follows_the_file():
    """Errors come from the first router address of a family; the live MTU beats the file's."""
    answering = "{ttl_exceeded_reply: true, no_backend: reject, deny: reject}"
    node = node_file(features=answering, tunnel="{mtu: 1300}")
    settings = compile_world(node).settings
    switches = (settings.ttl_exceeded_reply, settings.reject_no_backend, settings.reject_deny)
    assert switches == (True, True, True)
    assert (settings.router_ip4, settings.router_ip6) == node.node.router_ip
    assert settings.tunnel_mtu == 1300
    assert compile_world(node, mtu=1450).settings.tunnel_mtu == 1450
    silent = compile_world(node_file()).settings
    assert (silent.ttl_exceeded_reply, silent.reject_no_backend, silent.reject_deny) == (False,) * 3
    assert silent.tunnel_mtu == 0


def test_params_follow_the_file():
    """Conntrack is as large as written; other tables have room for what the file holds."""
    world = compile_world(node_file())
    assert (world.params.ct_tcp, world.params.ct_any) == (256, 256)
    assert world.params.policy >= 4 * len(world.policy)


def test_names_and_ports_cover_every_endpoint():
    """Ids lead to names and names to ports; the node's own ports are among them."""
    world = compile_world(node_file())
    assert world.names == {10: "a"}
    assert world.ports["a"] == 10
    assert set(world.ports) == {"a", "cilium_host", "netdev", "overlay"}


EVERY_KEY = Path(__file__).parent / "every_key.yaml"
"""The example of the contract: every section and key there is."""
TEXT = EVERY_KEY.read_text()
CHANGES = [
    ("ip: 192.168.56.105", "ip: 192.168.56.99"),
    ('mac: "02:00:c0:a8:38:69"', 'mac: "02:00:c0:a8:38:70"'),
    ("pod_cidr: 10.244.2.0/24", "pod_cidr: 10.244.2.0/25"),
    ("router_ip: 10.244.0.150", "router_ip: 10.244.0.151"),
    ("loopback_ip: 169.254.42.1", "loopback_ip: 169.254.42.2"),
    ("protocol: vxlan", "protocol: disabled"),
    ("port: 8472", "port: 4789"),
    ("mtu: auto", "mtu: 1400"),
    ("{peer: true,", "{peer: false,"),
    ("source: true}", "source: false}"),
    ("ip: 192.168.56.106, pod", "ip: 192.168.56.96, pod"),
    ("vni: 42", "vni: 43"),
    ("vni: 42, identity: 2}", "vni: 42, identity: 9}"),
    ("id: 2825", "id: 2826"),
    ("identity: 25001", "identity: 25003"),
    ("ip: 10.244.0.108", "ip: [10.244.0.108, 10.244.0.109]"),
    ('mac: "96:86:44:a6:37:01"', 'mac: "96:86:44:a6:37:02"'),
    ('node_mac: "d2:ad:65:4d:d0:01"', 'node_mac: "d2:ad:65:4d:d0:02"'),
    ("ifindex: 75", "ifindex: 76"),
    ("enforce: {ingress: false", "enforce: {ingress: true"),
    ("egress: false}", "egress: true}"),
    ("{prefix: 0.0.0.0/0, identity: 2}", "{prefix: 0.0.0.0/1, identity: 2}"),
    ("10.244.2.171/32, identity: 25002", "10.244.2.171/32, identity: 25004"),
    ("tunnel_endpoint: 192.168.56.106", "tunnel_endpoint: 192.168.56.107"),
    ("flags: []}", "flags: [skip_tunnel]}"),
    ("name: default/web", "name: default/other"),
    ("frontend: 10.96.0.10", "frontend: 10.96.0.11"),
    ("port: 80\n", "port: 81\n"),
    ("proto: tcp  ", "proto: udp  "),
    ("scope: external ", "scope: internal "),
    ("flags: []   ", "flags: [int_local]   "),
    ("port: 80, state", "port: 81, state"),
    ("state: active}", "state: maintenance}"),
    ("direction: egress, identity: 25002", "direction: ingress, identity: 25002"),
    ("proto: udp, port: 8080", "proto: sctp, port: 8080"),
    ("port: 8080-8095", "port: 8080-8096"),
    ("action: deny", "action: allow"),
    ("tcp: 524288", "tcp: 1024"),
    ("any: 262144", "any: 1024"),
    *((f"{key}: {was}", f"{key}: 77") for key, was in (
        (" {tcp", 8000), ("tcp_syn", 60), ("tcp_close", 10), (" any", 60),
        ("service_tcp", 8000), ("service_any", 60))),
    ("fragments: true", "fragments: false"),
    ("icmp_frag_needed: true", "icmp_frag_needed: false"),
    ("masquerade: false", "masquerade: true"),
    ("nodeport: false", "nodeport: true"),
    ("no_backend: drop", "no_backend: reject"),
    ("deny: drop", "deny: reject"),
    ("vlan_allowed: []", "vlan_allowed: [7]"),
]  # fmt: skip


def test_the_example_of_the_contract_is_understood():
    """Every key of it is known, and none is one that does nothing here."""
    assert parse_node_text(TEXT, EVERY_KEY).warnings == ()


@pytest.mark.parametrize(("was", "now"), CHANGES, ids=[now.strip() for _, now in CHANGES])
def test_every_key_of_the_example_reaches_the_tables(was, now):
    """One key changed, and the compiled world is another one: no key is decoration."""
    assert was in TEXT
    base = compile_world(parse_node_text(TEXT, EVERY_KEY))
    assert compile_world(parse_node_text(TEXT.replace(was, now, 1), EVERY_KEY)) != base


def test_keys_of_the_example_that_only_a_daemon_reads():
    """Names of devices, namespaces and sockets are handed on as written."""
    node = parse_node_text(TEXT, EVERY_KEY)
    (pod,) = node.endpoints
    assert (pod.ifname, pod.netns, pod.labels) == ("lxca7eadf015921", "curl", {"app": "curl"})
    assert (node.api.socket, node.node.name) == ("/run/fwd/fwd.sock", "node1")
    assert node.metrics is not None
    assert str(node.metrics.listen) == "127.0.0.1:9962"


def test_a_service_may_bind_clients_and_choose_them():
    """Affinity's timeout and the source ranges, which the example leaves at rest."""
    text = TEXT.replace("flags: []   ", "flags: [affinity, source_range, routable, node_port]", 1)
    text = text.replace("affinity_timeout_s: 0", "affinity_timeout_s: 90")
    text = text.replace("source_ranges: []", "source_ranges: [198.51.100.0/24]")
    world = compile_world(
        parse_node_text(text.replace("nodeport: false", "nodeport: true"), EVERY_KEY)
    )
    assert next(row for row in world.services if row.backends).affinity_timeout_s == 90
    assert {row.prefix for row in world.source_ranges} == {net("198.51.100.0/24")}


def test_the_nodes_ipv6_address_is_the_hosts_and_what_pods_hide_behind():
    """In cilium_lxc and the ipcache beside the others; without it IPv6 pods keep their own."""
    text = (
        "node: {name: n, ip: 192.0.2.1, ip6: '2001:db8::1', pod_cidr: 'fd00::/64', "
        "router_ip: 'fd00::1', loopback_ip: 'fd00:1::1'}\n"
    )
    world = compile_world(parse_node_text(text, Path("n.yaml")))
    own = ip("2001:db8::1")
    assert (world.settings.node_ip6, world.settings.node_ip) == (own, ip("192.0.2.1"))
    (row,) = [row for row in world.lxc if row.addr == own]
    assert (row.host, row.router, row.lxc_id) == (True, False, 0)
    assert {str(row.prefix): row.identity for row in world.ipcache}["2001:db8::1/128"] == 1
    assert str(world.settings.loopback6) == "fd00:1::1"
    assert str(world.settings.loopback) == "169.254.42.1", "the family that is not written"
    without = compile_world(
        parse_node_text(text.replace("ip6: '2001:db8::1', ", ""), Path("n.yaml"))
    )
    assert without.settings.node_ip6 is None
