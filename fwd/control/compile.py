"""Node file to table rows: what each table must hold so that the node does what the file says.

Pure (D12): same file, same rows, in the same order. Rows the datapath cannot do without (identities
of the world, of this node and of its peers) are made here; raw ipcache rows override them.
Source: datapath reference 2.1 and 2.2.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import TYPE_CHECKING

from fwd.control.outside import compile_outside
from fwd.control.policy import compile_policy
from fwd.control.services import compile_services, service_names
from fwd.control.world import HOST_PORTS, World
from fwd.model.address import derive_mac, host_network
from fwd.model.identity import HOST, REMOTE_NODE, WORLD
from fwd.model.rows import EndpointRow, IpcacheRow, LxcRow, Params, PeerRow, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwd.config.schema import EndpointSection, NodeFile
    from fwd.control.world import Link

__all__ = ["compile_world", "router_mac"]

WILDCARD = "(wildcard)"
"""Name of the entries that stand for the other ports of services' addresses."""
SPARE = 4  # a table holds this many times the rows of the file it was sized for


def compile_world(
    node: NodeFile, links: Mapping[str, Link] = MappingProxyType({}), mtu: int = 0
) -> World:
    """Return the tables of ``node``.

    Args:
        node: a checked node file.
        links: endpoint name to its device, where one exists; else the file's ``ifindex``.
        mtu: what the tunnel carries, bytes of an inner IP datagram, where the underlay is known;
            else the file's ``tunnel.mtu``, and with ``auto`` there sizes are not checked.
    """
    endpoints = tuple(_endpoint(endpoint, links) for endpoint in node.endpoints)
    policy, rules = compile_policy(node)
    ipcache = tuple(_ipcache(node).values())
    services, backends = compile_services(node.services)
    outside = compile_outside(node, services, backends)
    return World(
        params=_params(node, n_policy=len(policy), n_ipcache=len(ipcache)),
        settings=_settings(node, mtu),
        ip=node.node.ip,
        endpoints=endpoints,
        lxc=tuple(_lxc(node)),
        ipcache=ipcache,
        policy=policy,
        peers=tuple(_peers(node)),
        services=services + outside.wildcards,
        backends=backends,
        source_ranges=outside.source_ranges,
        maglev=outside.maglev,
        rules=rules,
        service_names=service_names(node.services, services)
        | dict.fromkeys((row.rev_nat_id for row in outside.wildcards), WILDCARD),
        names={endpoint.id: endpoint.name for endpoint in node.endpoints},
        ports={endpoint.name: endpoint.id for endpoint in node.endpoints} | HOST_PORTS,
    )


def router_mac(node: NodeFile) -> bytes:
    """Return the MAC of cilium_host: what pods' packets for the host and the world are sent to."""
    return node.node.mac or derive_mac("cilium_host", node.node.name)


def _endpoint(endpoint: EndpointSection, links: Mapping[str, Link]) -> EndpointRow:
    link = links.get(endpoint.name)
    return EndpointRow(
        lxc_id=endpoint.id,
        identity=endpoint.identity,
        ifindex=link.ifindex if link else endpoint.ifindex or 0,
        mac=endpoint.mac,
        node_mac=endpoint.node_mac,
    )


def _lxc(node: NodeFile) -> Iterator[LxcRow]:
    """Give every local address: pods' to their endpoint, the node's own to the host."""
    for address in node.node.own:
        yield LxcRow(address, 0, host=True, router=address in node.node.router_ip)
    for endpoint in node.endpoints:
        for address in endpoint.ip:
            yield LxcRow(address, endpoint.id)


def _ipcache(node: NodeFile) -> dict[object, IpcacheRow]:
    """Return prefix to row; a later row of the same prefix takes the earlier one's place."""
    rows = [
        IpcacheRow(IPv4Network("0.0.0.0/0"), WORLD),
        IpcacheRow(IPv6Network("::/0"), WORLD),
    ]
    for peer in node.peers:
        rows += [
            IpcacheRow(prefix, peer.identity or WORLD, tunnel_endpoint=peer.ip)
            for prefix in peer.pod_cidr
        ]
    rows += [IpcacheRow(host_network(address), HOST) for address in node.node.own]
    rows += [IpcacheRow(host_network(peer.ip), REMOTE_NODE) for peer in node.peers]
    rows += [
        IpcacheRow(host_network(router), peer.identity or REMOTE_NODE, tunnel_endpoint=peer.ip)
        for peer in node.peers
        for router in peer.router_ip
    ]
    rows += [
        IpcacheRow(host_network(address), endpoint.identity)
        for endpoint in node.endpoints
        for address in endpoint.ip
    ]
    rows += [
        IpcacheRow(
            row.prefix,
            row.identity,
            # a tunnel to oneself is none: the agent stores 0 there (reference 2.1)
            tunnel_endpoint=None if row.tunnel_endpoint == node.node.ip else row.tunnel_endpoint,
            skip_tunnel="skip_tunnel" in row.flags,
        )
        for row in node.ipcache
    ]
    return {row.prefix: row for row in rows}


def _peers(node: NodeFile) -> Iterator[PeerRow]:
    for peer in node.peers:
        yield PeerRow(peer.ip, vni=peer.vni, identity=peer.identity or 0)


def _params(node: NodeFile, *, n_policy: int, n_ipcache: int) -> Params:
    """Size the arena: conntrack as written, the rest with room for reloads."""
    sizes = Params()
    n_addresses = sum(len(endpoint.ip) for endpoint in node.endpoints)
    n_ranges = sum(len(service.source_ranges) for service in node.services)
    n_slots = sum(len(service.backends) for service in node.services)
    capacity = node.conntrack.capacity
    return Params(
        ct_tcp=capacity.tcp,
        ct_any=capacity.any,
        nat=max(16, (capacity.tcp + capacity.any) * 2 // 3),  # Cilium's ratio
        ipcache=max(sizes.ipcache, SPARE * n_ipcache),
        endpoints=max(sizes.endpoints, SPARE * len(node.endpoints)),
        lxc=max(sizes.lxc, SPARE * n_addresses),
        policy=max(sizes.policy, SPARE * n_policy),
        peers=max(sizes.peers, SPARE * len(node.peers)),
        services=max(sizes.services, SPARE * len(node.services)),
        source_ranges=max(sizes.source_ranges, SPARE * n_ranges),
        maglev=min(65535, max(sizes.maglev, SPARE * len(node.services))),
        backends=max(sizes.backends, SPARE * n_slots),
        slots=max(sizes.slots, SPARE * n_slots),
    )


def _settings(node: NodeFile, mtu: int) -> Settings:
    lifetimes = node.conntrack.lifetimes_s
    routers = {address.version: address for address in reversed(node.node.router_ip)}
    loopbacks = {address.version: address for address in node.node.loopback_ip}
    if mtu == 0 and node.tunnel.mtu != "auto":
        mtu = node.tunnel.mtu
    return Settings(
        ct_tcp_s=lifetimes.tcp,
        ct_tcp_syn_s=lifetimes.tcp_syn,
        ct_tcp_close_s=lifetimes.tcp_close,
        ct_any_s=lifetimes.any,
        ct_service_tcp_s=lifetimes.service_tcp,
        ct_service_any_s=lifetimes.service_any,
        tunnel_port=node.tunnel.port,
        tunnel=node.tunnel.protocol == "vxlan",
        verify_peer=node.tunnel.verify.peer,
        verify_source=node.tunnel.verify.source,
        fragments=node.features.fragments,
        icmp_frag_needed=node.features.icmp_frag_needed,
        ttl_exceeded_reply=node.features.ttl_exceeded_reply,
        reject_no_backend=node.features.no_backend == "reject",
        reject_deny=node.features.deny == "reject",
        tunnel_mtu=mtu,
        mss_clamp=node.features.mss_clamp,
        policy_audit=node.features.policy_audit,
        router_ip4=routers.get(4),
        router_ip6=routers.get(6),
        loopback=loopbacks.get(4, Settings().loopback),
        loopback6=loopbacks.get(6, Settings().loopback6),
        masquerade=node.features.masquerade,
        nodeport=node.features.nodeport,
        node_ip=node.node.ip,
        node_ip6=node.node.ip6,
        router_mac=router_mac(node),
        host_mac=router_mac(node),
        vlan_allowed=frozenset(node.features.vlan_allowed),
    )
