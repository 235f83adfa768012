"""Scenario 02, written out: curl asks a ClusterIP, nginx on the other node answers as it.

`02-curl-to-a-service/steps.jsonl` is made of this (`pytest tests/scenarios --refresh-golden`).
"""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, raw

from tests.scenarios.story import CURL, CURL_GW, CURL_IP, GET, PAGE, Ether, http, nginx, reply

__all__ = ["SERVICE_STORY", "VIP"]

VIP, SELF, LOOPBACK = "10.96.0.10", "10.96.0.11", "169.254.42.1"


def _curl(address: str, packet: Packet) -> dict[str, Any]:
    frame = Ether(src=CURL, dst=CURL_GW) / IP(src=CURL_IP, dst=address) / packet
    return {"port": "kube-system/curl", "frame": raw(frame).hex()}


SERVICE_STORY: list[dict[str, Any]] = [
    {"dump": "lb"},
    # the walk: the VIP is exchanged for nginx before anything else looks at the packet
    {"at": 0.001} | _curl(VIP, http("S", 0, 0)),
    {"at": 0.0015} | nginx(reply("SA", 0, 1)),
    {"at": 0.002} | _curl(VIP, http("PA", 1, 1, GET)),
    {"at": 0.003} | nginx(reply("PA", 1, 1 + len(GET), PAGE)),
    {"dump": "ct"},
    # curl asks a service whose backend is curl: it sees the loopback address, then the VIP
    {"at": 1.0} | _curl(SELF, UDP(sport=40001, dport=53) / b"query"),
    {"at": 1.001} | _curl(LOOPBACK, UDP(sport=5353, dport=40001) / b"answer"),
    # nginx is taken out: its connection is forgotten at once, nobody is left to answer
    {"at": 2.0, "reload": "node1-empty.yaml"},
    {"dump": "ct"},
    {"at": 2.001} | _curl(VIP, http("S", 0, 0)),
    {"dump": "lb"},
    {"dump": "metrics"},
]
