"""Events as the ring gives them, around the seed's first SYN."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from fwd.datapath.packet import Event

__all__ = ["SYN", "event"]

SYN = bytes(
    Ether(src="96:86:44:a6:37:01", dst="d2:ad:65:4d:d0:01")
    / IP(src="10.244.0.108", dst="10.244.2.171")
    / TCP(sport=43512, dport=80, flags="S")
)


def event(**fields: Any) -> Event:
    """The trace of the seed's SYN at to-endpoint on node2, with ``fields`` changed."""
    sample: dict[str, Any] = {
        "time_ns": 1, "type": 4, "subtype": 0, "source": 2826, "hash": 0x8A1C3F02,
        "len_orig": len(SYN), "ct": 0, "dir": 1, "src_identity": 48172, "dst_identity": 27914,
        "dst_id": 2826, "ifindex": 29, "rule_id": 1, "verdict": 0, "dst_port": 80, "proto": 6,
        "match": 2, "policy_endpoint": 2826, "orig_ip": ip_address("10.244.0.108"), "data": SYN,
    }  # fmt: skip
    return Event(**sample | fields)
