"""The slow path's answers, row by row; scapy builds the questions and reads the answers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Padding, Raw

from fwd.datapath.slowpath import answer

POD_MAC, NODE_MAC = "96:86:44:a6:37:01", "d2:ad:65:4d:d0:01"
POD, ROUTER = "10.244.0.108", "10.244.0.150"
POD6, ROUTER6, OTHER6 = "fd00::108", "fd00::150", "fd00::109"
BROADCAST = "ff:ff:ff:ff:ff:ff"


def ask(frame) -> bytes | None:
    """Give the slow path of the seed's pod a frame."""
    return answer(
        bytes(frame),
        bytes.fromhex(POD_MAC.replace(":", "")),
        bytes.fromhex(NODE_MAC.replace(":", "")),
        [IPv4Address(POD), IPv6Address("fd00::108")],
        [IPv4Address(ROUTER), IPv6Address("fd00::150")],
    )


def arp(dst=BROADCAST, **fields):
    """An ARP frame of the pod."""
    fields = {"op": 1, "hwsrc": POD_MAC, "psrc": POD, "pdst": ROUTER, **fields}
    return Ether(src=POD_MAC, dst=dst) / ARP(**fields)


def echo(ip=None, icmp=None, payload=b"fwd" * 20):
    """An echo request of the pod to the router, as the datapath hands it over."""
    header = IP(**{"src": POD, "dst": ROUTER, "ttl": 63, "id": 7, **(ip or {})})
    message = ICMP(**{"type": 8, "id": 3, "seq": 9, **(icmp or {})})
    return Ether(src=POD_MAC, dst="02:00:c0:a8:38:69") / header / message / Raw(payload)


@pytest.mark.parametrize("target", [ROUTER, "10.244.0.1", "1.2.3.4", "10.244.2.171"])
@pytest.mark.parametrize("dst", [BROADCAST, NODE_MAC])
def test_arp_for_any_target_is_answered(target, dst):
    """The node's MAC is the answer for every address that is not the pod's own."""
    got = Ether(ask(arp(dst=dst, pdst=target)))
    assert (got.src, got.dst, got.type) == (NODE_MAC, POD_MAC, 0x0806)
    reply = got[ARP]
    assert (reply.op, reply.hwtype, reply.ptype, reply.hwlen, reply.plen) == (2, 1, 0x0800, 6, 4)
    assert (reply.hwsrc, reply.psrc, reply.hwdst, reply.pdst) == (NODE_MAC, target, POD_MAC, POD)


def test_padded_arp_is_answered():
    """Bytes behind the 28 of ARP do not matter."""
    assert ask(arp() / Padding(bytes(18))) == ask(arp())


SILENT_ARP = {
    "own address": arp(pdst=POD),
    "probe": arp(psrc="0.0.0.0", pdst=POD),
    "probe for another": arp(psrc="0.0.0.0"),
    "announcement": arp(psrc=POD, pdst=POD),
    "gratuitous for a foreign address": arp(psrc="10.244.0.9", pdst="10.244.0.9"),
    "reply": arp(op=2),
    "reverse request": arp(op=3),
    "other hardware": arp(hwtype=6),
    "other protocol": arp(ptype=0x86DD),
    "other hardware length": arp(hwlen=8),
    "other protocol length": arp(plen=16),
    "unicast to somebody else": arp(dst="02:00:00:00:00:77"),
    "multicast": arp(dst="01:00:5e:00:00:01"),
    "cut by one byte": bytes(arp())[:41],
    "header only": bytes(arp())[:14],
}


@pytest.mark.parametrize("frame", SILENT_ARP.values(), ids=SILENT_ARP)
def test_other_arp_is_left_alone(frame):
    """Probes, announcements, replies and malformed requests get no answer."""
    assert ask(frame) is None


ECHO = {
    "plain": echo(),
    "empty": echo(payload=b""),
    "odd length": echo(payload=b"x"),
    "with IP options": echo(ip={"options": IPOption_RR(routers=["0.0.0.0"])}),
    "with DF and TOS": echo(ip={"flags": "DF", "tos": 0xB8}),
    "full size": echo(payload=bytes(range(256)) * 5),
}


@pytest.mark.parametrize("request_frame", ECHO.values(), ids=ECHO)
def test_echo_to_the_router_is_answered(request_frame):
    """Addresses are swapped, id, sequence and data kept, TTL fresh, both checksums right."""
    raw = ask(request_frame)
    got, asked = Ether(raw), Ether(bytes(request_frame))
    assert (got.src, got.dst) == (NODE_MAC, POD_MAC)
    assert (got[IP].src, got[IP].dst, got[IP].ttl, got[IP].ihl) == (ROUTER, POD, 64, 5)
    assert (got[ICMP].type, got[ICMP].code, got[ICMP].id, got[ICMP].seq) == (0, 0, 3, 9)
    assert bytes(got[ICMP].payload) == bytes(asked[ICMP].payload)
    assert got[IP].tos == asked[IP].tos
    judged = Ether(raw)
    del judged[IP].chksum, judged[ICMP].chksum
    assert bytes(judged) == raw


def test_padding_of_a_short_echo_is_not_echoed():
    """The IP length decides what belongs to the request."""
    assert ask(echo(payload=b"") / Padding(bytes(18))) == ask(echo(payload=b""))


SILENT_IP = {
    "to another address": echo(ip={"dst": "10.244.0.1"}),
    "reply": echo(icmp={"type": 0}),
    "code is not 0": echo(icmp={"code": 1}),
    "unreachable": echo(icmp={"type": 3}),
    "wrong ICMP checksum": echo(icmp={"chksum": 1}),
    "first fragment": echo(ip={"flags": "MF"}),
    "later fragment": echo(ip={"frag": 100}),
    "longer than the frame": echo(ip={"len": 2000}),
    "shorter than ICMP": echo(ip={"len": 24}),
    "length zero": echo(ip={"len": 0}),
    "header length too small": echo(ip={"ihl": 4}),
    "header length beyond the frame": echo(ip={"ihl": 15}, payload=b""),
    "version 6 in IPv4": echo(ip={"version": 6}),
    "UDP to the router": Ether(src=POD_MAC) / IP(src=POD, dst=ROUTER) / UDP(dport=53),
    "nothing": b"",
    "cut": bytes(echo())[:30],
    "other EtherType": Ether(src=POD_MAC, type=0x88CC) / Raw(bytes(50)),
}


@pytest.mark.parametrize("frame", SILENT_IP.values(), ids=SILENT_IP)
def test_other_frames_are_left_alone(frame):
    """Only whole, valid echo requests to the router are answered."""
    assert ask(frame) is None


def solicit(ip=None, target=ROUTER6):
    """A neighbour solicitation of the pod."""
    header = IPv6(**{"src": POD6, "dst": "ff02::1:ff00:150", "hlim": 255, **(ip or {})})
    question = ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=POD_MAC)
    return Ether(src=POD_MAC, dst="33:33:ff:00:01:50") / header / question


def echo6(ip=None, payload=b"fwd" * 20, **fields):
    """An ICMPv6 echo request of the pod to the router."""
    header = IPv6(**{"src": POD6, "dst": ROUTER6, "hlim": 64, **(ip or {})})
    message = ICMPv6EchoRequest(id=3, seq=9, data=payload, **fields)
    return Ether(src=POD_MAC, dst=NODE_MAC) / header / message


@pytest.mark.parametrize(("target", "flags"), [(ROUTER6, (1, 1, 0)), (OTHER6, (0, 1, 1))])
@pytest.mark.parametrize("asker", [POD6, "fe80::9486:44ff:fea6:3701"])
def test_solicitation_is_answered_with_the_nodes_mac(target, flags, asker):
    """The router says that it is one; a neighbour's entry is overridden; the router speaks."""
    raw = ask(solicit({"src": asker}, target))
    got = Ether(raw)
    assert (got.src, got.dst, got.type) == (NODE_MAC, POD_MAC, 0x86DD)
    assert (got[IPv6].src, got[IPv6].dst, got[IPv6].hlim) == (ROUTER6, asker, 255)
    advert = got[ICMPv6ND_NA]
    assert (advert.tgt, (advert.R, advert.S, advert.O)) == (target, flags)
    assert got[ICMPv6NDOptDstLLAddr].lladdr == NODE_MAC
    judged = Ether(raw)
    del judged[IPv6].plen, judged[ICMPv6ND_NA].cksum
    assert bytes(judged) == raw


def test_a_node_without_a_router_address_lets_the_target_speak():
    """IPv6 pods without a router in the file still find each other."""
    mac = bytes.fromhex(NODE_MAC.replace(":", ""))
    got = Ether(answer(bytes(solicit(target=OTHER6)), bytes(6), mac, [], []))
    assert got[IPv6].src == OTHER6


def test_echo_to_the_routers_ipv6_address_is_answered():
    """Addresses are swapped, id, sequence and data kept, hop limit fresh, checksum right."""
    raw = ask(echo6() / Padding(b"not part of it"))
    got = Ether(raw)
    assert (got[IPv6].src, got[IPv6].dst, got[IPv6].hlim) == (ROUTER6, POD6, 64)
    reply = got[ICMPv6EchoReply]
    assert (reply.code, reply.id, reply.seq, reply.data) == (0, 3, 9, b"fwd" * 20)
    judged = Ether(raw)
    del judged[IPv6].plen, judged[ICMPv6EchoReply].cksum
    assert bytes(judged) == raw


ADVERT = Ether(src=POD_MAC) / IPv6(src=POD6, dst=ROUTER6, hlim=255) / ICMPv6ND_NA(tgt=ROUTER6)
SILENT_IPV6 = {
    "own address": solicit(target=POD6),
    "duplicate address detection": solicit({"src": "::"}, "fe80::1"),
    "from beyond the link": solicit({"hlim": 254}),
    "wrong checksum": bytes(solicit())[:-1] + b"\0",
    "cut": bytes(solicit())[:-9],
    "advertisement": ADVERT,
    "echo to another address": echo6({"dst": OTHER6}),
    "echo with a code": echo6(code=1),
    "echo with a wrong checksum": echo6(cksum=1),
    "echo longer than the frame": echo6({"plen": 200}),
    "solicitation without a target": echo6({"dst": ROUTER6, "hlim": 255}, type=135, payload=b""),
    "UDP to the router": Ether(src=POD_MAC) / IPv6(src=POD6, dst=ROUTER6) / UDP(dport=53),
    "version 4 in IPv6": echo6({"version": 4}),
}


@pytest.mark.parametrize("frame", SILENT_IPV6.values(), ids=SILENT_IPV6)
def test_other_ipv6_is_left_alone(frame):
    """Only whole, valid solicitations and echo requests are answered."""
    assert ask(frame) is None


@given(
    start=st.sampled_from(
        [b"", bytes(arp())[:14], bytes(arp())[:20], bytes(echo())[:34], bytes(solicit())[:55]]
    ),
    rest=st.binary(max_size=80),
)
def test_any_bytes_give_an_answer_or_silence(start, rest):
    """No frame makes the slow path fail, and an answer always goes to the pod's MAC or asker."""
    got = ask(start + rest)
    assert got is None or got[6:12] == bytes.fromhex(NODE_MAC.replace(":", ""))
