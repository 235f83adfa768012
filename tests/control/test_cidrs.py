"""Prefixes of policies: their numbers, what a rule for one means, and their ipcache rows."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fwd.config.load import parse_node_text
from fwd.control.cidrs import LOCAL_FIRST, CidrIdentities
from tests.control.manifests import NODE

NETWORKS = st.tuples(st.integers(0, 255), st.integers(4, 8)).map(
    lambda pair: ip_network(f"{pair[0]}.0.0.0/{pair[1]}", strict=False)
)


def cidrs(*prefixes, text="", own=()):
    """The identities of prefixes on node n1."""
    node = parse_node_text(NODE + text, Path("n1.yaml"))
    return CidrIdentities(node, map(ip_network, prefixes), {ip_address(one) for one in own})


@given(st.lists(NETWORKS, max_size=8), NETWORKS, st.lists(NETWORKS, max_size=2))
def test_a_rule_means_the_prefixes_inside(prefixes, cidr, excepts):
    """Found by order what a scan finds."""
    found = cidrs(*map(str, prefixes))
    names = {text.removeprefix("cidr:"): number for number, text in found.names.items()}
    inside = {
        number
        for text, number in names.items()
        if ip_network(text).subnet_of(cidr)
        and not any(ip_network(text).subnet_of(one) for one in excepts)
    }
    assert found.inside(cidr, tuple(excepts)) == inside


def test_numbers_are_local_and_in_order():
    """From 0x01000001 on, by address."""
    found = cidrs("172.16.0.0/12", "10.0.0.0/8", "::/0")
    assert found.names == {
        LOCAL_FIRST: "cidr:10.0.0.0/8",
        LOCAL_FIRST + 1: "cidr:172.16.0.0/12",
        LOCAL_FIRST + 2: "cidr:::/0",
    }
    assert [row.tunnel_endpoint for row in found.rows()] == [None] * 3


def test_pods_and_nodes_keep_their_identity():
    """A prefix that is just their address means nobody; a raw row of its own neither."""
    found = cidrs("10.0.2.9/32", "10.7.0.0/16", own=["10.0.2.9"],
                  text="ipcache: [{prefix: 10.7.0.0/16, identity: 300}]\n")  # fmt: skip
    assert found.names == {}


def test_world_gives_way():
    """A raw row that says world becomes the prefix's, with its flags."""
    text = "ipcache: [{prefix: 0.0.0.0/0, identity: 2, flags: [skip_tunnel]}]\n"
    (row,) = cidrs("0.0.0.0/0", text=text).rows()
    assert (row.identity, row.flags) == (LOCAL_FIRST, ("skip_tunnel",))


def test_inside_a_peer_s_range_the_tunnel_stays():
    """Unknown pods there are still reached through the peer; plain peers keep their identity."""
    (row,) = cidrs("10.0.2.0/25").rows()
    assert str(row.tunnel_endpoint) == "192.0.2.2"
    text = NODE.replace("pod_cidr: 10.0.2.0/24}", "pod_cidr: 10.0.2.0/24, vni: 7, identity: 300}")
    node = parse_node_text(text, Path("n1.yaml"))
    assert list(CidrIdentities(node, [ip_network("10.0.2.0/25")], set()).rows()) == []


def test_raw_cidr_identities_keep_their_numbers_and_are_meant():
    """Nobody else gets such a number; one that stands for two prefixes is meant by no rule."""
    text = (
        "ipcache: [{prefix: 10.9.0.0/16, identity: 16777217}, {prefix: 10.8.0.0/16, identity: "
        "16777218}, {prefix: 11.8.0.0/16, identity: 16777218}]\n"
        "endpoints: [{name: a, id: 1, identity: 300, ip: 10.0.0.9}]\n"
        "policy: [{endpoint: a, direction: egress, identity: 16777219, action: allow}]\n"
    )
    found = cidrs("10.0.0.0/8", "10.9.0.0/16", "12.0.0.0/8", text=text)
    assert found.names == {LOCAL_FIRST + 3: "cidr:10.0.0.0/8", LOCAL_FIRST + 4: "cidr:12.0.0.0/8"}
    assert found.inside(ip_network("10.0.0.0/8")) == {LOCAL_FIRST, LOCAL_FIRST + 3}
    assert found.inside(ip_network("10.9.0.0/16")) == {LOCAL_FIRST}
    assert found.inside(ip_network("10.0.0.0/8"), (ip_network("10.9.0.0/16"),)) == {LOCAL_FIRST + 3}
    assert [str(row.prefix) for row in found.rows()] == ["10.0.0.0/8", "12.0.0.0/8"]


def test_world_rows_inside_a_named_prefix_are_a_part_of_it():
    """Their addresses would be world and no longer the prefix's; outside it they stay."""
    text = (
        "ipcache: [{prefix: 8.8.0.0/16, identity: 2}, {prefix: 9.9.0.0/16, identity: 2}, "
        "{prefix: 8.9.0.0/16, identity: 2, tunnel_endpoint: 192.0.2.2}]\n"
    )
    found = cidrs("8.0.0.0/8", text=text)
    rows = {str(row.prefix): (row.identity, str(row.tunnel_endpoint)) for row in found.rows()}
    assert rows == {
        "8.0.0.0/8": (LOCAL_FIRST, "None"),
        "8.8.0.0/16": (LOCAL_FIRST + 1, "None"),
        "8.9.0.0/16": (LOCAL_FIRST + 2, "192.0.2.2"),
    }
    assert found.inside(ip_network("8.0.0.0/8")) == {one for one, _ in rows.values()}
