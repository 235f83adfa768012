"""Rows of the datapath's tables: what control compiles, what binding writes and dumps.

Values only. Addresses are ``ipaddress`` objects, MACs are 6 bytes, ports are host order.
One class a row struct of csrc/abi.h; the field names are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LOOPBACK = IPv4Address("169.254.42.1")  # Cilium's default
_LOOPBACK6 = IPv6Address("fda9:fe2a:100::1")  # a unique local address that spells the IPv4 one

__all__ = [
    "Address",
    "BackendRow",
    "CtRow",
    "EndpointRow",
    "IpcacheRow",
    "LxcRow",
    "MaglevRow",
    "MetricRow",
    "NatRow",
    "Network",
    "Params",
    "PeerRow",
    "PolicyRow",
    "ServiceRow",
    "Settings",
    "SourceRangeRow",
    "TableStats",
]


@dataclass(frozen=True, slots=True)
class Params:
    """Capacities (items) and seeds of an arena; fixed while it lives."""

    ct_tcp: int = 524288
    ct_any: int = 262144
    ipcache: int = 512000
    endpoints: int = 1024
    lxc: int = 4096
    policy: int = 65536
    peers: int = 4096
    fragments: int = 8192
    events: int = 4096
    """Ring slots, a power of two."""
    services: int = 4096
    backends: int = 16384
    slots: int = 32768
    affinity: int = 65536
    nat: int = 65536
    """Two a mapping."""
    source_ranges: int = 4096
    maglev: int = 1024
    """Services with a table; each takes 4 KB when it is written."""
    hash_seed: int = 0
    boot_id: bytes = bytes(16)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a reload may change; ``*_s`` are seconds."""

    ct_tcp_s: int = 8000
    ct_tcp_syn_s: int = 60
    ct_tcp_close_s: int = 10
    ct_any_s: int = 60
    ct_service_tcp_s: int = 8000
    ct_service_any_s: int = 60
    ct_report_interval_s: int = 5
    monitor_mask: int = 0
    monitor_aggregation: int = 0
    punt_rate_pps: int = 100
    punt_burst: int = 200
    tunnel_port: int = 8472
    tunnel: bool = True
    verify_peer: bool = True
    verify_source: bool = True
    fragments: bool = True
    icmp_frag_needed: bool = True
    ttl_exceeded_reply: bool = False
    reject_no_backend: bool = False
    reject_deny: bool = False
    tunnel_mtu: int = 0
    """Largest inner IP datagram in bytes, 0 = not checked."""
    mss_clamp: bool = False
    policy_audit: bool = False
    router_ip4: Address | None = None
    """Source of the ICMP errors this node sends; None = it sends none."""
    router_ip6: Address | None = None
    router_mac: bytes = bytes(6)
    host_mac: bytes = bytes(6)
    loopback: Address = _LOOPBACK
    loopback6: Address = _LOOPBACK6
    masquerade: bool = False
    nodeport: bool = False
    """Services are there for traffic from netdev, too."""
    node_ip: Address | None = None
    """What pods' packets to the world are sent under with ``masquerade``."""
    node_ip6: Address | None = None
    """The same for IPv6 pods; None = they keep their addresses."""
    vlan_allowed: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """One local endpoint, by ``lxc_id`` (1..65535)."""

    lxc_id: int
    identity: int
    ifindex: int
    mac: bytes
    node_mac: bytes


@dataclass(frozen=True, slots=True)
class LxcRow:
    """One local address: an endpoint's, or with ``host`` the node's own (``lxc_id`` 0)."""

    addr: Address
    lxc_id: int
    host: bool = False
    router: bool = False
    """With ``host``: the pods' gateway, whose echo requests the slow path answers."""


@dataclass(frozen=True, slots=True)
class IpcacheRow:
    """Prefix to identity and tunnel endpoint (None = native)."""

    prefix: Network
    identity: int
    tunnel_endpoint: Address | None = None
    skip_tunnel: bool = False


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One policy map entry; key = all but rule_id, deny and the counters."""

    lxc_id: int
    dir: int
    """1 ingress, 2 egress."""
    identity: int
    """0 = any."""
    proto: int
    port: int
    prefix_len: int
    """0 any, 8 protocol, 8 + n: n leading bits of the port."""
    deny: bool
    rule_id: int
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class PeerRow:
    """A remote node; ``vni`` None = the VNI carries the source identity."""

    ip: Address
    vni: int | None = None
    identity: int = 0


@dataclass(frozen=True, slots=True)
class BackendRow:
    """Where a service's traffic goes; ``state`` as enum fwd_backend_state (0 = active)."""

    id: int
    addr: Address
    port: int
    """0 = keep the packet's."""
    proto: int
    state: int = 0


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A frontend and its backend slots; key = frontend, port, proto, scope."""

    frontend: Address
    port: int
    proto: int
    scope: int
    """0 external, 1 internal."""
    flags: int
    """FWD_SVC_* of csrc/abi.h."""
    rev_nat_id: int
    affinity_timeout_s: int = 0
    backends: tuple[int, ...] = ()
    """Backend ids, slot 1 first."""


@dataclass(frozen=True, slots=True)
class SourceRangeRow:
    """Who may use a service from outside; the whole row is the key."""

    rev_nat_id: int
    prefix: Network


@dataclass(frozen=True, slots=True)
class MaglevRow:
    """The Maglev table of a service, by ``rev_nat_id``: a backend id a place."""

    rev_nat_id: int
    backends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CtRow:
    """One conntrack entry, as stored (addresses reversed, see datapath reference 3.1)."""

    daddr: Address
    saddr: Address
    dport: int
    sport: int
    proto: int
    tuple_flags: int
    flags: int
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    expires_s: int
    src_identity: int
    last_rx_report_s: int
    last_tx_report_s: int
    backend_id: int
    rev_nat_id: int
    ifindex: int
    rx_flags_seen: int
    tx_flags_seen: int


@dataclass(frozen=True, slots=True)
class NatRow:
    """One half of a masquerade mapping; addresses and ports as in the packet before translation."""

    daddr: Address
    saddr: Address
    dport: int
    sport: int
    """Of an echo request the identifier."""
    proto: int
    incoming: bool
    """The half that answers find: ``to`` replaces the destination, else the source."""
    to_addr: Address
    to_port: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class MetricRow:
    """(reason, direction) -> packets, bytes."""

    reason: int
    dir: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class TableStats:
    """Capacity and use of one table; size in bytes."""

    cap: int
    count: int
    size: int
    evictions: int
    failures: int
