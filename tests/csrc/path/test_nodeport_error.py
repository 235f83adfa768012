"""ICMP errors of clients outside and of backends: who reads one sees its own packet again.

The twin is the packet itself: whatever was translated on the way, what an error quotes must be
byte for byte what its receiver once sent, but for the hops it took.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from fwd.datapath.binding import PORT_NETDEV, PORT_OVERLAY, Datapath, Outcome
from fwd.datapath.packet import Packet
from fwd.model.enums import Verdict
from tests.csrc.path.answers import ones_sum, pseudo6, sums_are_right
from tests.csrc.path.build import build
from tests.csrc.path.rows import complete
from tests.csrc.path.test_nodeport import NODE1, NODE2, WORLD2, cross, datapath

NGINX, LOCAL = 60, 2827
HALF_A_SUM = 40 + 17
"""Quoted bytes of IPv6 that end within TCP's checksum: half of one cannot be put right."""
SEC = 1_000_000_000
# (client, service, backend, its port, router on the client's way), by family and place
FLOWS: dict[str, dict[str, Any]] = {
    "near4": {"client": "203.0.113.9", "service": "192.168.56.105", "dport": 30080,
              "backend": "10.244.0.109", "router": "198.51.100.77", "proto": "tcp"},
    "far4": {"client": "203.0.113.9", "service": "198.51.100.10", "dport": 80,
             "backend": "10.244.2.171", "router": "198.51.100.77", "proto": "tcp"},
    "dns4": {"client": "203.0.113.9", "service": "198.51.100.10", "dport": 53,
             "backend": "10.244.2.171", "router": "198.51.100.77", "proto": "udp"},
    "near6": {"client": "2001:db8::9", "service": "2001:db8::10", "dport": 80,
              "backend": "fd00::109", "router": "2001:db8::77", "proto": "tcp"},
    "far6": {"client": "2001:db8::9", "service": "2001:db8::11", "dport": 80,
             "backend": "fd00:2::171", "router": "2001:db8::77", "proto": "tcp"},
}  # fmt: skip
MACS = {
    NGINX: {"smac": "96:86:44:a6:37:03", "dmac": "d2:ad:65:4d:d0:03"},
    LOCAL: {"smac": "96:86:44:a6:37:02", "dmac": "d2:ad:65:4d:d0:02"},
}


class Story:
    """A client, node 1, and node 2 where the backend is far."""

    def __init__(self, one: Datapath, two: Datapath, flow: dict[str, Any], sport: int) -> None:
        self.one, self.two, self.flow = one, two, flow
        self.six = ":" in flow["client"]
        self.far = flow["backend"] in {"10.244.2.171", "fd00:2::171"}
        self.sport = sport

    def request(self) -> tuple[bytes, bytes]:
        """The client's packet as it was sent and as the backend gets it, both without Ethernet."""
        spec = {"src": self.flow["client"], "dst": self.flow["service"], "payload": "x" * 40,
                self.flow["proto"]: {"sport": self.sport, "dport": self.flow["dport"]}}  # fmt: skip
        sent = build(complete({"port": "netdev", "frame": spec}))
        return sent[14:], self.inward(sent).frame[14:]

    def answer(self, got: bytes) -> tuple[bytes, bytes]:
        """The backend's packet as it was sent and as it leaves node 1."""
        ip = (IPv6 if self.six else IP)(got)
        ports = {"sport": ip.payload.dport, "dport": ip.payload.sport}
        spec = {"src": ip.dst, "dst": ip.src, "payload": "y" * 40, self.flow["proto"]: ports}
        sent = build({**MACS[NGINX if self.far else LOCAL], **spec})
        return sent[14:], self.outward(sent).frame[14:]

    def inward(self, frame: bytes) -> Outcome:
        """From netdev to the backend's TAP."""
        (out,) = self.one.run(SEC, [Packet(frame, PORT_NETDEV)])
        if self.far:
            out = cross(self.two, 1, out, NODE1, NODE2)
        assert (out.verdict, out.port) == (Verdict.TX_ENDPOINT, NGINX if self.far else LOCAL)
        return out

    def outward(self, frame: bytes) -> Outcome:
        """From the backend's TAP out of node 1's netdev."""
        if self.far:
            (out,) = self.two.run(SEC, [Packet(frame, NGINX)])
            out = cross(self.one, 1, out, NODE2, NODE1)
        else:
            (out,) = self.one.run(SEC, [Packet(frame, LOCAL)])
            if out.verdict == Verdict.TO_STACK:  # which routes it out of netdev
                (out,) = self.one.run(SEC, [Packet(out.frame, PORT_NETDEV, to_netdev=True)])
        assert (out.verdict, out.port) == (Verdict.TX_UNDERLAY, PORT_NETDEV)
        return out


def error(src: str, dst: str, quoted: bytes, macs: dict[str, str]) -> bytes:
    """Fragmentation needed, or packet too big, around any bytes."""
    six = ":" in src
    header = IPv6(src=src, dst=dst, nh=58) if six else IP(src=src, dst=dst, proto=1)
    head = bytes([2, 0, 0, 0, 0, 0, 5, 20]) if six else bytes([3, 4, 0, 0, 0, 0, 5, 20])
    message = head + quoted
    pseudo = bytes(header)[8:40] + pseudo6(message) if six else b""
    check = 0xFFFF - ones_sum(pseudo + message)
    ether = Ether(src=macs["smac"], dst=macs["dmac"])
    return bytes(ether / header / Raw(message[:2] + check.to_bytes(2) + message[4:]))


def aged(packet: bytes, like: bytes) -> bytes:
    """The packet with another's TTL and the checksum that goes with it."""
    six = packet[0] >> 4 == 6
    ip = (IPv6 if six else IP)(packet)
    if six:
        ip.hlim = like[7]
    else:
        ip.ttl = like[8]
        del ip.chksum
    return bytes(ip)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(FLOWS)),
    sport=st.sampled_from([80, 40000, 65535]),
    keep=st.integers(48, 200).filter(lambda length: length != HALF_A_SUM),
    router=st.booleans(),
)
def test_who_reads_an_error_sees_its_own_packet(
    *, name: str, sport: int, keep: int, router: bool
) -> None:
    """Both directions, both families, near and far, from the end or from a router on the way."""
    flow = FLOWS[name]
    with datapath() as one, datapath(WORLD2) as two:
        story = Story(one, two, flow, sport)
        asked, got = story.request()
        answered, out = story.answer(got)
        teller = flow["router"] if router else flow["client"]
        told = story.inward(
            error(teller, flow["service"], out[:keep], complete({"port": "netdev"}))
        ).frame
        head = 14 + (40 if story.six else 20) + 8
        assert sums_are_right(told)
        assert told[head:] == aged(answered, out)[:keep]
        # and the other way round: the backend complains about the request
        client, own = (ip_address(part) for part in ends(got))
        complaint = error(str(own), str(client), got[:keep], MACS[NGINX if story.far else LOCAL])
        heard = story.outward(complaint).frame
        assert sums_are_right(heard)
        assert heard[head:] == aged(asked, got)[:keep]
        assert ends(heard[14:]) == (
            ip_address(flow["service"]).packed, ip_address(flow["client"]).packed
        )  # fmt: skip
        # connections go on as if nothing had been said
        assert story.request()[1] == got


def ends(packet: bytes) -> tuple[bytes, bytes]:
    """Source and destination of an IP packet."""
    at, size = (8, 16) if packet[0] >> 4 == 6 else (12, 4)
    return packet[at : at + size], packet[at + size : at + 2 * size]


def test_two_clients_of_one_port_are_told_apart_by_what_is_quoted() -> None:
    """The second client's port moved; the backend's error finds each of them."""
    with datapath() as one, datapath(WORLD2) as two:
        for client in ("203.0.113.9", "203.0.113.10"):
            story = Story(one, two, {**FLOWS["dns4"], "client": client}, 40000)
            _, got = story.request()
            source, own = (ip_address(part) for part in ends(got))
            heard = story.outward(error(str(own), str(source), got, MACS[NGINX])).frame
            assert ends(heard[14:])[1] == ip_address(client).packed
            quoted = heard[14 + 20 + 8 :]
            assert ends(quoted)[0] == ip_address(client).packed
            assert int.from_bytes(quoted[20:22]) == 40000


def test_an_error_that_comes_in_the_tunnel_is_checked_as_any_packet() -> None:
    """What is not believed of a peer's addresses is not translated either."""
    with datapath() as one, datapath(WORLD2) as two:
        story = Story(one, two, FLOWS["dns4"], 40000)
        _, got = story.request()
        forged = error("10.244.9.9", "10.244.0.150", got, MACS[NGINX])
        payload = bytes([8, 0, 0, 0, 0, 0, 2, 0]) + forged
        packet = Packet(payload, PORT_OVERLAY, outer_src=NODE2, outer_dst=NODE1)
        (out,) = one.run(SEC, [packet])
        assert out.verdict == Verdict.DROP
