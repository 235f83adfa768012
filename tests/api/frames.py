"""The seed's world as a node file, and frames its pods send."""

from __future__ import annotations

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

__all__ = ["CURL_MAC", "NGINX", "NODE", "NODE_MAC", "syn", "udp"]

CURL_MAC, NODE_MAC = "96:86:44:a6:37:01", "d2:ad:65:4d:d0:01"
NGINX = "10.244.2.171"

NODE = """\
node:
  name: node1
  ip: 192.168.56.105
  pod_cidr: 10.244.0.0/24
  router_ip: 10.244.0.150
peers:
  - {name: node2, ip: 192.168.56.106, pod_cidr: 10.244.2.0/24}
endpoints:
  - name: default/curl
    id: 2825
    identity: 25001
    labels: {app: curl}
    ip: 10.244.0.108
    mac: "96:86:44:a6:37:01"
    node_mac: "d2:ad:65:4d:d0:01"
    ifname: lxca7eadf015921
    ifindex: 75
    enforce: {egress: true}
ipcache:
  - {prefix: 10.244.2.171/32, identity: 25002, tunnel_endpoint: 192.168.56.106}
policy:
  - {endpoint: default/curl, direction: egress, identity: 25002, proto: tcp, port: 80,
     action: allow}
conntrack:
  capacity: {tcp: 8192, any: 8192}
api: {socket: SOCKET}
"""


def syn(sport: int = 43512, dport: int = 80, dst: str = NGINX) -> bytes:
    """A pod's first TCP packet."""
    return bytes(_ether() / IP(src="10.244.0.108", dst=dst) / TCP(sport=sport, dport=dport))


def udp(dport: int = 53) -> bytes:
    """A datagram that no rule of NODE allows."""
    return bytes(_ether() / IP(src="10.244.0.108", dst=NGINX) / UDP(sport=5353, dport=dport))


def _ether() -> Ether:
    return Ether(src=CURL_MAC, dst=NODE_MAC)
