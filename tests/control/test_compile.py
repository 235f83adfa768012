"""Node file to rows: the content every table must have."""

from __future__ import annotations

from ipaddress import ip_address as ip
from ipaddress import ip_network as net

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
