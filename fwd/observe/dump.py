"""Table rows as JSON objects and as the text of Cilium's map dumps (reference 8.6).

Pure. The daemon makes objects of rows, the command line makes text of objects, so that ``-o json``
and the tables never differ. Connections read from initiator to responder, whatever order the key
stores them in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fwd.model.address import mac_text
from fwd.model.identity import identity_name
from fwd.observe.dissect import host_port, protocol_name
from fwd.observe.words import DIRECTION_TEXT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwd.model.rows import (
        CtRow,
        EndpointRow,
        IpcacheRow,
        LxcRow,
        NatRow,
        PeerRow,
        PolicyRow,
    )

__all__ = [
    "ct_key",
    "ct_line",
    "ct_record",
    "ct_value",
    "endpoint_record",
    "ipcache_record",
    "ipcache_value",
    "lxc_value",
    "peer_record",
    "policy_record",
]

_IN, _RELATED, _SERVICE = 1, 2, 4  # tuple flags
_CT_FLAGS = (
    (1, "RxClosing"),
    (2, "TxClosing"),
    (4, "Nat64"),
    (8, "LBLoopback"),
    (16, "SeenNonSyn"),
    (32, "NodePort"),
    (64, "ProxyRedirect"),
    (128, "DSR"),
    (256, "FromL7LB"),
    (1024, "FromTunnel"),
)
_CT_FLAGS_KNOWN = sum(bit for bit, _ in _CT_FLAGS)


# ---- conntrack ----


def ct_record(row: CtRow) -> dict[str, Any]:
    """One conntrack entry; a service entry reads from its frontend to the client, as in Cilium."""
    return {
        "proto": protocol_name(row.proto).upper(),
        "direction": "IN" if row.tuple_flags & _IN else "OUT",
        "src_ip": str(row.daddr),
        "src_port": row.sport,
        "dst_ip": str(row.saddr),
        "dst_port": row.dport,
        "related": bool(row.tuple_flags & _RELATED),
        "service": bool(row.tuple_flags & _SERVICE),
        "expires_s": row.expires_s,
        "rx_packets": row.rx_packets,
        "rx_bytes": row.rx_bytes,
        "rx_flags_seen": row.rx_flags_seen,
        "last_rx_report_s": row.last_rx_report_s,
        "tx_packets": row.tx_packets,
        "tx_bytes": row.tx_bytes,
        "tx_flags_seen": row.tx_flags_seen,
        "last_tx_report_s": row.last_tx_report_s,
        "flags": row.flags,
        "rev_nat_id": row.rev_nat_id,
        "backend_id": row.backend_id,
        "src_identity": row.src_identity,
        "ifindex": row.ifindex,
    }


def nat_record(row: NatRow) -> dict[str, Any]:
    """One half of a masquerade mapping; ``to_*`` is the source's or the destination's new value."""
    return {
        "proto": protocol_name(row.proto).upper(),
        "direction": "IN" if row.incoming else "OUT",
        "src_ip": str(row.saddr),
        "src_port": row.sport,
        "dst_ip": str(row.daddr),
        "dst_port": row.dport,
        "to_ip": str(row.to_addr),
        "to_port": row.to_port,
        "created_ns": row.created_ns,
    }


def nat_line(record: Mapping[str, Any]) -> str:
    """One line of ``fwd nat list``, as Cilium's."""
    source = host_port(record["src_ip"], record["src_port"])
    target = host_port(record["dst_ip"], record["dst_port"])
    what = "XLATE_DST" if record["direction"] == "IN" else "XLATE_SRC"
    to = host_port(record["to_ip"], record["to_port"])
    return f"{record['proto']} {record['direction']} {source} -> {target} {what} {to}"


def ct_key(record: Mapping[str, Any]) -> str:
    """``TCP OUT a:p -> b:q``, with `` related`` or `` service`` behind it."""
    kind = (" related" if record["related"] else "") + (" service" if record["service"] else "")
    source = host_port(record["src_ip"], record["src_port"])
    target = host_port(record["dst_ip"], record["dst_port"])
    return f"{record['proto']} {record['direction']} {source} -> {target}{kind}"


def ct_value(record: Mapping[str, Any]) -> str:
    """Everything of ``fwd ct list``'s line behind the key."""
    flags = record["flags"]
    words = [text for bit, text in _CT_FLAGS if flags & bit]
    if flags & ~_CT_FLAGS_KNOWN:
        words.append(f"Unknown={flags & ~_CT_FLAGS_KNOWN:#x}")
    return (
        f"expires={record['expires_s']}"
        f" RxPackets={record['rx_packets']} RxBytes={record['rx_bytes']}"
        f" RxFlagsSeen={record['rx_flags_seen']:#04x} LastRxReport={record['last_rx_report_s']}"
        f" TxPackets={record['tx_packets']} TxBytes={record['tx_bytes']}"
        f" TxFlagsSeen={record['tx_flags_seen']:#04x} LastTxReport={record['last_tx_report_s']}"
        f" Flags={flags:#06x} [ {''.join(f'{word} ' for word in words)}]"
        f" RevNAT={record['rev_nat_id']} SourceSecurityID={record['src_identity']}"
    )


def ct_line(record: Mapping[str, Any]) -> str:
    """One line of ``fwd ct list`` and ``fwd bpf ct list global``."""
    return f"{ct_key(record)} {ct_value(record)}"


# ---- ipcache ----


def ipcache_record(row: IpcacheRow) -> dict[str, Any]:
    """One prefix with its identity and, where it has one, tunnel endpoint."""
    return {
        "prefix": str(row.prefix),
        "identity": row.identity,
        "identity_name": identity_name(row.identity),
        "tunnel_endpoint": str(row.tunnel_endpoint) if row.tunnel_endpoint else None,
        "flags": ["skip_tunnel"] if row.skip_tunnel else [],
    }


def ipcache_value(record: Mapping[str, Any]) -> str:
    """``identity=N encryptkey=0 tunnelendpoint=IP``; flags are named only when there are any."""
    flags = ",".join(flag.replace("_", "") for flag in record["flags"])
    return (
        f"identity={record['identity']} encryptkey=0 "
        f"tunnelendpoint={record['tunnel_endpoint'] or '0.0.0.0'}"  # noqa: S104 - Cilium's "none"
        f"{f' flags={flags}' if flags else ''}"
    )


# ---- endpoints ----


def endpoint_record(row: EndpointRow, name: str | None, addresses: list[str]) -> dict[str, Any]:
    """One local endpoint as the datapath has it."""
    return {
        "id": row.lxc_id,
        "name": name,
        "identity": row.identity,
        "addresses": addresses,
        "ifindex": row.ifindex,
        "mac": mac_text(row.mac),
        "node_mac": mac_text(row.node_mac),
    }


def lxc_value(row: LxcRow, endpoint: EndpointRow | None) -> str:
    """Value of a cilium_lxc entry; the node's own addresses say only ``(localhost)``."""
    if row.host:
        return "(localhost)"
    ifindex = endpoint.ifindex if endpoint else 0
    mac = mac_text(endpoint.mac if endpoint else bytes(6)).upper()
    node_mac = mac_text(endpoint.node_mac if endpoint else bytes(6)).upper()
    return f"id={row.lxc_id:<5} flags=0x0000 ifindex={ifindex:<3} mac={mac} nodemac={node_mac}"


# ---- policy, peers ----


def policy_record(row: PolicyRow, rule: Mapping[str, Any] | None) -> dict[str, Any]:
    """One policy map entry with the rule it was compiled from."""
    return {
        "action": "deny" if row.deny else "allow",
        "direction": DIRECTION_TEXT.get(row.dir, "unknown"),
        "identity": row.identity,
        "identity_name": identity_name(row.identity) if row.identity else "any",
        "proto": protocol_name(row.proto) if row.prefix_len else "any",
        "port": _port_text(row),
        "packets": row.packets,
        "bytes": row.bytes,
        "rule_id": row.rule_id,
        "rule": rule,
    }


def _port_text(row: PolicyRow) -> str:
    """``any``, a port, or the range that the prefix spans."""
    bits = row.prefix_len - 8
    if bits <= 0:
        return "any"
    last = row.port + (1 << (16 - bits)) - 1
    return str(row.port) if last == row.port else f"{row.port}-{last}"


def peer_record(row: PeerRow, name: str | None, pod_cidr: list[str]) -> dict[str, Any]:
    """One remote node."""
    return {
        "name": name,
        "ip": str(row.ip),
        "pod_cidr": pod_cidr,
        "self": False,
        "vni": row.vni,
        "identity": row.identity if row.vni is not None else None,
    }
