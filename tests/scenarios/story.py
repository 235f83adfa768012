"""Scenario 01, written out: the seed's story in order, and where each step comes from.

`01-curl-to-nginx/steps.jsonl` is made of this (`pytest tests/scenarios --refresh-golden`), so that
the hex in it has an author. Two pods, two nodes, the underlay between them:

    curl 10.244.0.108 - node1 192.168.56.105 == VXLAN == node2 192.168.56.106 - nginx 10.244.2.171
"""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw, raw

__all__ = ["CURL_IP", "NGINX_IP", "STORY"]

CURL_IP, NGINX_IP = "10.244.0.108", "10.244.2.171"
CURL, CURL_GW = "96:86:44:a6:37:01", "d2:ad:65:4d:d0:01"
NGINX, NGINX_GW = "96:86:44:a6:37:ec", "d2:ad:65:4d:d0:7b"
HOST, ROUTER1 = "02:00:c0:a8:38:69", "10.244.0.150"
GET = b"GET / HTTP/1.1\r\nHost: 10.244.2.171\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
PAGE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 8\r\nConnection: close\r\n\r\nWelcome\n"
)
C0, N0 = 1000, 9000  # initial sequence numbers


def curl(packet: Packet, **step: Any) -> dict[str, Any]:
    """A frame that leaves the curl pod."""
    frame = Ether(src=CURL, dst=CURL_GW) / IP(src=CURL_IP, dst=NGINX_IP) / packet
    return {"port": "kube-system/curl", "frame": raw(frame).hex()} | step


def nginx(packet: Packet, **step: Any) -> dict[str, Any]:
    """A frame that leaves the nginx pod, on node 2."""
    frame = Ether(src=NGINX, dst=NGINX_GW) / IP(src=NGINX_IP, dst=CURL_IP) / packet
    return {"node": 2, "port": "kube-system/nginx", "frame": raw(frame).hex()} | step


def http(flags: str, seq: int, ack: int, data: bytes = b"") -> Packet:
    """A segment from curl's port to nginx's."""
    segment = TCP(sport=43512, dport=80, flags=flags, seq=C0 + seq, ack=N0 + ack if ack else 0)
    return segment / Raw(data) if data else segment


def reply(flags: str, seq: int, ack: int, data: bytes = b"") -> Packet:
    """A segment of nginx's answer."""
    segment = TCP(sport=80, dport=43512, flags=flags, seq=N0 + seq, ack=C0 + ack)
    return segment / Raw(data) if data else segment


def curl_frame(frame: Packet) -> dict[str, Any]:
    """Any frame on curl's port."""
    return {"port": "kube-system/curl", "frame": raw(frame).hex()}


def _arp() -> Packet:
    request = ARP(op=1, hwsrc=CURL, psrc=CURL_IP, pdst=ROUTER1)
    return Ether(src=CURL, dst="ff:ff:ff:ff:ff:ff") / request


def _to(address: str, packet: Packet) -> Packet:
    return Ether(src=CURL, dst=CURL_GW) / IP(src=CURL_IP, dst=address) / packet


def _from_host(packet: Packet) -> dict[str, Any]:
    frame = Ether(src=HOST, dst=HOST) / IP(src="192.168.56.105", dst=CURL_IP) / packet
    return {"port": "cilium_host", "frame": raw(frame).hex()}


LEN_GET, LEN_PAGE = len(GET), len(PAGE)

STORY: list[dict[str, Any]] = [
    # curl asks who has its gateway: any address but its own is the node's (reference 7.3)
    {"at": 0.0} | curl_frame(_arp()),
    # the walk: SYN there, SYN-ACK back, ACK
    {"at": 0.001} | curl(http("S", 0, 0)),
    {"at": 0.0015} | nginx(reply("SA", 0, 1)),
    {"at": 0.002} | curl(http("A", 1, 1)),
    # the page
    {"at": 0.003} | curl(http("PA", 1, 1, GET)),
    {"at": 0.004} | nginx(reply("PA", 1, 1 + LEN_GET, PAGE)),
    {"at": 0.0045} | curl(http("A", 1 + LEN_GET, 1 + LEN_PAGE)),
    # the maps the seed looks at, while the connection lives
    {"dump": "ipcache"},
    {"node": 2, "dump": "lxc"},
    {"dump": "ct"},
    {"node": 2, "dump": "ct"},
    # both say goodbye: from here the entries live ten seconds
    {"at": 0.005} | nginx(reply("FA", 1 + LEN_PAGE, 1 + LEN_GET)),
    {"at": 0.0055} | curl(http("FA", 1 + LEN_GET, 2 + LEN_PAGE)),
    {"at": 0.006} | nginx(reply("A", 2 + LEN_PAGE, 2 + LEN_GET)),
    # ping: nginx, then the gateway, which the slow path answers
    {"at": 1.0} | curl(ICMP(type=8, id=7, seq=1)),
    {"at": 1.001} | nginx(ICMP(type=0, id=7, seq=1)),
    {"at": 2.0} | curl_frame(_to(ROUTER1, ICMP(type=8, id=8, seq=1))),
    # out into the world, and from the node itself to its pod
    {"at": 3.0} | curl_frame(_to("203.0.113.9", UDP(sport=5353, dport=53))),
    {"at": 4.0} | _from_host(ICMP(type=8, id=9, seq=1)),
    # eleven seconds after the FINs the connection is swept, the ICMP companion a minute later
    {"at": 12.0, "sweep": True},
    {"at": 12.0, "dump": "ct"},
    # node 2 gets a policy: HTTP from curl goes on, another port is denied, and why is told
    {"at": 20.0, "node": 2, "reload": "node2-policy.yaml"},
    {"at": 20.5} | curl(TCP(sport=43600, dport=80, flags="S", seq=1)),
    {"at": 21.0} | curl(TCP(sport=43601, dport=8080, flags="S", seq=1)),
    {"at": 21.0, "node": 2, "dump": "policy"},
    {"at": 21.0, "dump": "metrics"},
    {"at": 21.0, "node": 2, "dump": "metrics"},
]
