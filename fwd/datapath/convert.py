"""Rows of fwd.model to the structs of csrc/abi.h and back.

``ffi`` and ``lib`` are arguments so that binding.py stays the only importer of the extension.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import ntohs
from typing import Any

from fwd.model.rows import (
    Address,
    BackendRow,
    CtRow,
    EndpointRow,
    IpcacheRow,
    LxcRow,
    MetricRow,
    NatRow,
    Network,
    Params,
    PeerRow,
    PolicyRow,
    ServiceRow,
    Settings,
    TableStats,
)

_MAPPED = bytes(10) + b"\xff\xff"
_ZERO = bytes(16)
_PLAIN_PARAMS = (
    "ct_tcp",
    "ct_any",
    "ipcache",
    "endpoints",
    "lxc",
    "policy",
    "peers",
    "fragments",
    "events",
    "services",
    "backends",
    "slots",
    "affinity",
    "nat",
    "source_ranges",
    "maglev",
    "hash_seed",
)
_PLAIN_SETTINGS = (
    "ct_tcp_s",
    "ct_tcp_syn_s",
    "ct_tcp_close_s",
    "ct_any_s",
    "ct_service_tcp_s",
    "ct_service_any_s",
    "ct_report_interval_s",
    "monitor_mask",
    "monitor_aggregation",
    "punt_rate_pps",
    "punt_burst",
    "tunnel_port",
    "tunnel_mtu",
)
_FLAG_SETTINGS = (
    "tunnel",
    "verify_peer",
    "verify_source",
    "fragments",
    "icmp_frag_needed",
    "ttl_exceeded_reply",
    "mss_clamp",
    "policy_audit",
    "reject_no_backend",
    "reject_deny",
    "masquerade",
    "nodeport",
)


def addr_bytes(addr: Address | None) -> bytes:
    """16 bytes, IPv4 mapped; None = all zero."""
    if addr is None:
        return _ZERO
    return _MAPPED + addr.packed if isinstance(addr, IPv4Address) else addr.packed


def addr_c(ffi: Any, addr: Address | None) -> Any:
    """A ``struct fwd_addr *``."""
    out = ffi.new("struct fwd_addr *")
    out.b = addr_bytes(addr)
    return out


def addr_py(ffi: Any, addr: Any) -> Address:
    """An address object, IPv4 when mapped."""
    return _address(bytes(ffi.buffer(addr.b)))


def _address(raw: bytes) -> Address:
    return IPv4Address(raw[12:]) if raw[:12] == _MAPPED else IPv6Address(raw)


def optional_addr_py(ffi: Any, addr: Any) -> Address | None:
    """None when all zero."""
    return None if bytes(ffi.buffer(addr.b)) == _ZERO else addr_py(ffi, addr)


def params_c(ffi: Any, params: Params) -> Any:
    """A ``struct fwd_params *``."""
    out = ffi.new("struct fwd_params *")
    for name in _PLAIN_PARAMS:
        setattr(out, name, getattr(params, name))
    out.boot_id = params.boot_id
    return out


def params_py(ffi: Any, row: Any) -> Params:
    """Params of a ``struct fwd_params *``."""
    values = {name: int(getattr(row, name)) for name in _PLAIN_PARAMS}
    return Params(**values, boot_id=bytes(ffi.buffer(row.boot_id)))


def settings_c(ffi: Any, settings: Settings) -> Any:
    """A ``struct fwd_settings *``."""
    out = ffi.new("struct fwd_settings *")
    for name in _PLAIN_SETTINGS + _FLAG_SETTINGS:
        setattr(out, name, int(getattr(settings, name)))
    out.router_mac = settings.router_mac
    out.host_mac = settings.host_mac
    out.loopback.b = addr_bytes(settings.loopback)
    out.loopback6.b = addr_bytes(settings.loopback6)
    out.node_ip.b = addr_bytes(settings.node_ip)
    out.node_ip6.b = addr_bytes(settings.node_ip6)
    out.router_ip4.b = addr_bytes(settings.router_ip4)
    out.router_ip6.b = addr_bytes(settings.router_ip6)
    for vlan in settings.vlan_allowed:
        out.vlan_allowed[vlan >> 3] |= 1 << (vlan & 7)
    return out


def settings_py(ffi: Any, row: Any) -> Settings:
    """Settings of a ``struct fwd_settings *``."""
    plain: dict[str, Any] = {name: int(getattr(row, name)) for name in _PLAIN_SETTINGS}
    flags: dict[str, Any] = {name: bool(getattr(row, name)) for name in _FLAG_SETTINGS}
    bits = bytes(ffi.buffer(row.vlan_allowed))
    return Settings(
        **plain,
        **flags,
        router_mac=bytes(ffi.buffer(row.router_mac)),
        host_mac=bytes(ffi.buffer(row.host_mac)),
        loopback=addr_py(ffi, row.loopback),
        loopback6=addr_py(ffi, row.loopback6),
        node_ip=optional_addr_py(ffi, row.node_ip),
        node_ip6=optional_addr_py(ffi, row.node_ip6),
        router_ip4=optional_addr_py(ffi, row.router_ip4),
        router_ip6=optional_addr_py(ffi, row.router_ip6),
        vlan_allowed=frozenset(v for v in range(4096) if bits[v >> 3] >> (v & 7) & 1),
    )


def endpoint_c(ffi: Any, row: EndpointRow) -> Any:
    """A ``struct fwd_endpoint_row *``."""
    out = ffi.new("struct fwd_endpoint_row *")
    out.lxc_id, out.identity, out.ifindex = row.lxc_id, row.identity, row.ifindex
    out.mac, out.node_mac = row.mac, row.node_mac
    return out


def endpoint_py(ffi: Any, row: Any) -> EndpointRow:
    """EndpointRow of a ``struct fwd_endpoint_row``."""
    mac, node_mac = bytes(ffi.buffer(row.mac)), bytes(ffi.buffer(row.node_mac))
    return EndpointRow(int(row.lxc_id), int(row.identity), int(row.ifindex), mac, node_mac)


def lxc_c(ffi: Any, lib: Any, row: LxcRow) -> Any:
    """A ``struct fwd_lxc_row *``."""
    out = ffi.new("struct fwd_lxc_row *")
    out.addr.b = addr_bytes(row.addr)
    out.lxc_id = row.lxc_id
    out.flags = lib.FWD_LXC_HOST * row.host | lib.FWD_LXC_ROUTER * row.router
    return out


def lxc_py(lib: Any, ffi: Any, row: Any) -> LxcRow:
    """LxcRow of a ``struct fwd_lxc_row``."""
    host, router = bool(row.flags & lib.FWD_LXC_HOST), bool(row.flags & lib.FWD_LXC_ROUTER)
    return LxcRow(addr_py(ffi, row.addr), int(row.lxc_id), host, router)


def ipcache_key_c(ffi: Any, prefix: Network) -> Any:
    """A ``struct fwd_ipcache_row *`` with only its key filled."""
    out = ffi.new("struct fwd_ipcache_row *")
    out.prefix.b = addr_bytes(prefix.network_address)
    out.family, out.prefix_len = prefix.version, prefix.prefixlen
    return out


def ipcache_c(ffi: Any, lib: Any, row: IpcacheRow) -> Any:
    """A ``struct fwd_ipcache_row *``."""
    out = ipcache_key_c(ffi, row.prefix)
    out.identity = row.identity
    out.tunnel_endpoint.b = addr_bytes(row.tunnel_endpoint)
    out.flags = lib.FWD_IPCACHE_SKIP_TUNNEL * row.skip_tunnel | lib.FWD_IPCACHE_HAS_TUNNEL * (
        row.tunnel_endpoint is not None
    )
    return out


def ipcache_py(lib: Any, ffi: Any, row: Any) -> IpcacheRow:
    """IpcacheRow of a ``struct fwd_ipcache_row``."""
    addr = addr_py(ffi, row.prefix)
    length = int(row.prefix_len)
    prefix: Network = (
        IPv4Network((addr, length)) if int(row.family) == 4 else IPv6Network((addr, length))
    )
    return IpcacheRow(
        prefix,
        int(row.identity),
        optional_addr_py(ffi, row.tunnel_endpoint),
        bool(row.flags & lib.FWD_IPCACHE_SKIP_TUNNEL),
    )


def policy_c(ffi: Any, row: PolicyRow) -> Any:
    """A ``struct fwd_policy_row *``; counters are read back only."""
    out = ffi.new("struct fwd_policy_row *")
    for name in ("lxc_id", "dir", "identity", "proto", "port", "prefix_len", "rule_id"):
        setattr(out, name, getattr(row, name))
    out.deny = int(row.deny)
    return out


def policy_py(row: Any) -> PolicyRow:
    """PolicyRow of a ``struct fwd_policy_row``."""
    return PolicyRow(
        lxc_id=int(row.lxc_id),
        dir=int(row.dir),
        identity=int(row.identity),
        proto=int(row.proto),
        port=int(row.port),
        prefix_len=int(row.prefix_len),
        deny=bool(row.deny),
        rule_id=int(row.rule_id),
        packets=int(row.packets),
        bytes=int(row.bytes),
    )


def peer_c(ffi: Any, row: PeerRow) -> Any:
    """A ``struct fwd_peer_row *``."""
    out = ffi.new("struct fwd_peer_row *")
    out.ip.b = addr_bytes(row.ip)
    out.fixed_vni = row.vni is not None
    out.vni, out.identity = row.vni or 0, row.identity
    return out


def peer_py(ffi: Any, row: Any) -> PeerRow:
    """PeerRow of a ``struct fwd_peer_row``."""
    vni = int(row.vni) if row.fixed_vni else None
    return PeerRow(addr_py(ffi, row.ip), vni, int(row.identity))


def service_c(ffi: Any, row: ServiceRow) -> Any:
    """A ``struct fwd_service_row *``; the slots travel beside it."""
    out = ffi.new("struct fwd_service_row *")
    out.frontend.b = addr_bytes(row.frontend)
    for name in ("port", "proto", "scope", "flags", "rev_nat_id", "affinity_timeout_s"):
        setattr(out, name, getattr(row, name))
    return out


def service_py(ffi: Any, row: Any, backends: tuple[int, ...]) -> ServiceRow:
    """ServiceRow of a ``struct fwd_service_row`` and its slots."""
    names = ("port", "proto", "scope", "flags", "rev_nat_id", "affinity_timeout_s")
    values = {name: int(getattr(row, name)) for name in names}
    return ServiceRow(frontend=addr_py(ffi, row.frontend), backends=backends, **values)


def backend_c(ffi: Any, row: BackendRow) -> Any:
    """A ``struct fwd_backend_row *``."""
    out = ffi.new("struct fwd_backend_row *")
    out.addr.b = addr_bytes(row.addr)
    out.id, out.port, out.proto, out.state = row.id, row.port, row.proto, row.state
    return out


def backend_py(ffi: Any, row: Any) -> BackendRow:
    """BackendRow of a ``struct fwd_backend_row``."""
    addr = addr_py(ffi, row.addr)
    return BackendRow(int(row.id), addr, int(row.port), int(row.proto), int(row.state))


_CT_ROW = struct.Struct("=16s16sHHBBHQQQQIIIIIHHBB6x")
"""struct fwd_ct_row field by field; read whole, for a dump of a million rows is read by clients."""


def ct_rows(records: bytes) -> list[CtRow]:
    """CtRows of the bytes of a ``struct fwd_ct_row[]``; ports in host order."""
    found = []
    for values in _CT_ROW.iter_unpack(records):
        (daddr, saddr, dport, sport, proto, tuple_flags, flags, rx_packets, rx_bytes, tx_packets,
         tx_bytes, expires_s, src_identity, last_rx_s, last_tx_s, backend_id, rev_nat_id, ifindex,
         rx_flags, tx_flags) = values  # fmt: skip
        found.append(CtRow(
            _address(daddr), _address(saddr), ntohs(dport), ntohs(sport), proto, tuple_flags, flags,
            rx_packets, rx_bytes, tx_packets, tx_bytes, expires_s, src_identity, last_rx_s,
            last_tx_s, backend_id, rev_nat_id, ifindex, rx_flags, tx_flags))  # fmt: skip
    return found


def nat_py(ffi: Any, row: Any) -> NatRow:
    """NatRow of a ``struct fwd_nat_row``; ports in host order."""
    return NatRow(
        daddr=addr_py(ffi, row.daddr),
        saddr=addr_py(ffi, row.saddr),
        dport=ntohs(int(row.dport)),
        sport=ntohs(int(row.sport)),
        proto=int(row.proto),
        incoming=bool(row.flags & 1),
        to_addr=addr_py(ffi, row.to_addr),
        to_port=ntohs(int(row.to_port)),
        created_ns=int(row.created_ns),
    )


def metric_py(row: Any) -> MetricRow:
    """MetricRow of a ``struct fwd_metric_row``."""
    return MetricRow(int(row.reason), int(row.dir), int(row.packets), int(row.bytes))


def stats_py(row: Any) -> TableStats:
    """TableStats of a ``struct fwd_table_stats *``."""
    return TableStats(
        int(row.cap), int(row.count), int(row.size), int(row.evictions), int(row.failures)
    )
