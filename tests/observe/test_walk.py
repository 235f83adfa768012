"""The walk: one literal line a stage, and steps grouped by packet."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from fwd.datapath.packet import Event, Step
from fwd.model.enums import STAGE_INFO, Drop, Stage
from fwd.observe.events import event_record
from fwd.observe.walk import (
    policy_rule_id,
    step_line,
    walk_from_events,
    walk_from_records,
    walk_lines,
)
from tests.observe.samples import event

NODE2 = int.from_bytes(ip_address("192.168.56.106").packed, "little")
NODE1 = int.from_bytes(ip_address("192.168.56.105").packed, "little")
POD = int.from_bytes(ip_address("10.244.0.108").packed, "little")
PORTS = 43512 << 16 | 80
IN = 1


def step(stage: Stage, *, drop: int = 0, flag: int = 0, addr: str = "::", **words: int) -> Step:
    """A step as the library reports it; ``words`` are len and a..d."""
    fields = {"len": 0, "a": 0, "b": 0, "c": 0, "d": 0} | words
    return Step(stage=stage, drop=drop, flag=flag, addr=ip_address(addr), **fields)


CURL, NGINX, NODE_2 = "10.244.0.108", "10.244.2.171", "192.168.56.106"
LINES = [
    (step(Stage.PARSE, a=0x0800, b=74, len=6, addr=NGINX),
     " 0  stage_parse              IPv4 TCP to 10.244.2.171, frame 74 bytes"),
    (step(Stage.PARSE, a=0x0800, b=20, drop=134),
     " 0  stage_parse              IPv4, frame 20 bytes: DROP 134 Invalid packet"),
    (step(Stage.PARSE, a=0x8100, b=60, drop=139),
     " 0  stage_parse              VLAN, frame 60 bytes: DROP 139 Unsupported L3 protocol"),
    (step(Stage.SOURCE_IP, flag=1, a=2825, b=25001, addr=CURL),
     " 0  stage_source_ip          10.244.0.108 is endpoint 2825, identity 25001"),
    (step(Stage.SOURCE_IP, drop=132, a=2825, b=25001, addr="10.244.0.9"),
     (" 0  stage_source_ip          10.244.0.9 is not an address of endpoint 2825, identity 25001: "
     "DROP 132 Invalid source ip")),
    (step(Stage.SOURCE_IP, flag=1, drop=130, a=2825, b=25001, addr=CURL),
     " 0  stage_source_ip          not the MAC of endpoint 2825: DROP 130 Invalid source mac"),
    (step(Stage.LB, d=80 << 16, len=6, addr=NGINX),
     " 1  stage_lb                 10.244.2.171:80 TCP is no service"),
    (step(Stage.LB, flag=1, a=3, b=NODE2, c=7, d=80 << 16 | 8080, len=6, addr="10.96.0.10"),
     (" 1  stage_lb                 service 10.96.0.10:80 TCP, rev_nat 3 -> backend "
      "192.168.56.106:8080, id 7")),
    (step(Stage.LB, flag=1, a=3, c=7, d=80 << 16 | 8080, len=6, addr="fd00::10"),
     " 1  stage_lb                 service [fd00::10]:80 TCP, rev_nat 3 -> backend id 7"),
    (step(Stage.LB, flag=1, drop=158, a=3, d=80 << 16, len=17, addr="10.96.0.10"),
     (" 1  stage_lb                 service 10.96.0.10:80 UDP, rev_nat 3: no backend: "
      "DROP 158 Service backend not found")),
    (step(Stage.LB, flag=1, drop=174, a=3, d=80 << 16, len=6, addr="10.96.0.10"),
     (" 1  stage_lb                 service 10.96.0.10:80 TCP, rev_nat 3: a ClusterIP, not there "
      "for the outside: DROP 174 Is a ClusterIP")),
    (step(Stage.LB, flag=1, drop=177, a=3, d=80 << 16, len=6, addr="10.96.0.10"),
     (" 1  stage_lb                 service 10.96.0.10:80 TCP, rev_nat 3: the client is in none of "
      "its source ranges: DROP 177 Denied by LB src range check")),
    (step(Stage.SNAT, flag=1, a=NODE1, b=50000, c=POD, d=PORTS, len=6, addr="fd00::10"),
     " 8  stage_snat               TCP source port 43512 becomes port 50000 of ours"),
    (step(Stage.REV_NAT, flag=1, a=3, d=80 << 16 | 8080, addr="10.96.0.10"),
     "11  stage_rev_nat            rev_nat 3: source becomes 10.96.0.10:80 again"),
    (step(Stage.REV_NAT, a=3),
     "11  stage_rev_nat            rev_nat 3 is gone, the source stays"),
    (step(Stage.SNAT, flag=1, a=NODE1, b=50000, c=POD,
          d=PORTS, len=6, addr=NGINX),
     " 8  stage_snat               TCP source 10.244.0.108:43512 becomes 192.168.56.105:50000"),
    (step(Stage.SNAT, drop=167, c=POD, d=PORTS, len=6, addr=NGINX),
     (" 8  stage_snat               no mapping for TCP 10.244.0.108:43512, peer 10.244.2.171: "
     "DROP 167 No mapping for NAT masquerade")),
    (step(Stage.REV_SNAT, flag=1, a=POD, b=43512, c=NODE1,
          d=80 << 16 | 50000, len=6, addr=NGINX),
     (" 9  stage_rev_snat           TCP destination 192.168.56.105:50000 becomes "
     "10.244.0.108:43512")),
    (step(Stage.CT_EGRESS, a=0, b=PORTS, d=128, len=6, addr=NGINX),
     (" 2  stage_ct_lookup(EGRESS)  cilium_ct4_global TCP OUT :43512 -> 10.244.2.171:80: "
     "no entry, state new")),
    (step(Stage.CT_INGRESS, flag=1, a=2, b=PORTS, len=6, addr=NGINX),
     ("11  stage_ct_lookup(INGRESS) cilium_ct4_global TCP OUT :43512 -> 10.244.2.171:80: "
     "hit, state reply")),
    (step(Stage.CT_INGRESS, flag=1, a=3, c=2, len=1, addr=NGINX),
     ("11  stage_ct_lookup(INGRESS) cilium_ct_any4_global ICMP OUT :0 -> 10.244.2.171:0 related: "
     "hit, state related")),
    (step(Stage.CT_EGRESS, drop=137, a=255, len=47),
     " 2  stage_ct_lookup(EGRESS)  proto 47 has no tuple: DROP 137 CT: Unknown L4 protocol"),
    (step(Stage.IPCACHE_DST, flag=1, a=25002, b=NODE2, len=32, addr=NGINX),
     (" 3  stage_ipcache_dst        ipcache 10.244.2.171/32 -> identity 25002, "
     "tunnel endpoint 192.168.56.106")),
    (step(Stage.IPCACHE_DST, flag=1, a=1, len=32, addr="10.244.0.150"),
     " 3  stage_ipcache_dst        ipcache 10.244.0.150/32 -> identity host, no tunnel"),
    (step(Stage.IPCACHE_DST, a=2, addr="1.1.1.1"),
     " 3  stage_ipcache_dst        no ipcache entry -> identity world"),
    (step(Stage.POLICY_EGRESS, flag=1, a=7, b=2, c=25002, d=2825, len=6),
     (" 4  stage_policy(EGRESS)     endpoint 2825, identity 25002, TCP: allow by entry L3-L4, "
     "rule 7")),
    (step(Stage.POLICY_INGRESS, flag=1, drop=181, a=7, b=3, c=2, d=2826, len=17),
     ("11  stage_policy(INGRESS)    endpoint 2826, identity world, UDP: deny by entry L4-Only, "
     "rule 7: DROP 181 Policy denied by denylist")),
    (step(Stage.POLICY_INGRESS, drop=133, c=25001, d=2826, len=6),
     ("11  stage_policy(INGRESS)    endpoint 2826, identity 25001, TCP: no entry: "
     "DROP 133 Policy denied")),
    (step(Stage.POLICY_INGRESS, c=2, d=2826, len=1),
     ("11  stage_policy(INGRESS)    endpoint 2826, identity world, ICMP: fragmentation needed, "
     "always passes")),
    (step(Stage.CT_CREATE_EGRESS, flag=1, len=6),
     " 5  stage_ct_write(EGRESS)   cilium_ct4_global TCP OUT: entry created"),
    (step(Stage.CT_CREATE_INGRESS, flag=1, len=17, c=IN),
     "11  stage_ct_write(INGRESS)  cilium_ct_any4_global UDP IN: entry created"),
    (step(Stage.CT_CREATE_EGRESS, drop=155, len=6),
     " 5  stage_ct_write(EGRESS)   cilium_ct4_global is full: DROP 155 CT: Map insertion failed"),
    (step(Stage.LOCAL, addr=NGINX),
     " 6  stage_local              10.244.2.171 is not in cilium_lxc: not on this node"),
    (step(Stage.LOCAL, flag=1, a=2826, addr=NGINX),
     " 6  stage_local              cilium_lxc 10.244.2.171 -> endpoint 2826"),
    (step(Stage.ENCAP, flag=1, a=25001, b=NODE2, addr=NODE_2),
     " 6  stage_encap              VXLAN VNI 25001 to 192.168.56.106"),
    (step(Stage.TO_STACK, a=64, addr="1.1.1.1"),
     " 6  to_stack                 1.1.1.1 is left to the host's stack, TTL 64"),
    (step(Stage.TO_OVERLAY, a=25001), " 7  hook_to_overlay          VNI 25001: nothing to rewrite"),
    (step(Stage.TO_NETDEV, a=82), " 8  hook_to_netdev           82 bytes to the wire"),
    (step(Stage.FROM_NETDEV, a=82), " 9  hook_from_netdev         82 bytes"),
    (step(Stage.FROM_NETDEV, a=82, b=7, drop=182),
     (" 9  hook_from_netdev         82 bytes, VLAN 7: "
     "DROP 182 VLAN traffic disallowed by VLAN filter")),
    (step(Stage.DECAP, flag=1, a=25001, b=82, addr="192.168.56.105"),
     "10  stage_decap              VXLAN VNI 25001 from 192.168.56.105, datagram 82 bytes"),
    (step(Stage.DECAP, drop=147, b=9, addr="192.168.56.105"),
     ("10  stage_decap              not VXLAN, datagram 9 bytes from 192.168.56.105: "
     "DROP 147 Error retrieving tunnel key")),
    (step(Stage.PEER, flag=1, a=25001, b=25001, c=25001, d=NODE1, addr="192.168.56.105"),
     ("10  stage_peer               peer 192.168.56.105, VNI 25001 -> identity 25001 "
     "behind 192.168.56.105")),
    (step(Stage.PEER, flag=1, a=25009, b=25009, c=25001, drop=242, addr="192.168.56.105"),
     ("10  stage_peer               peer 192.168.56.105, VNI 25009 -> identity 25009, "
     "ipcache says 25001: DROP 242 VNI is not the identity of the inner source")),
    (step(Stage.PEER, a=1, drop=240, addr="192.168.56.99"),
     ("10  stage_peer               192.168.56.99 is in no peers row: "
     "DROP 240 Overlay packet from an unknown peer")),
    (step(Stage.ENDPOINT, flag=1, a=2826, c=29, d=27914, addr=NGINX),
     ("10  stage_endpoint           cilium_lxc 10.244.2.171 -> endpoint 2826, ifindex 29, "
     "identity 27914")),
    (step(Stage.ENDPOINT, flag=1, b=1, addr="10.244.2.150"),
     "10  stage_endpoint           cilium_lxc 10.244.2.150 -> the node itself"),
    (step(Stage.L3, a=64, b=2826), ("10  stage_l3                 TTL 64 -> 63, "
     "MACs of endpoint 2826")),
    (step(Stage.L3, a=1, drop=196), ("10  stage_l3                 TTL 1 -> 0, "
     "MACs of the next hop: DROP 196 TTL exceeded")),
    (step(Stage.MTU, a=1500, b=1450, drop=136),
     (" 6  stage_mtu                1500 bytes, the tunnel carries 1450: "
     "DROP 136 Fragmentation needed")),
    (step(Stage.MSS, flag=1, a=1460, b=1410),
     (" 6  stage_mss                MSS 1460 lowered to 1410")),
    (step(Stage.ICMP_ERROR, flag=1, a=3, b=4, c=1450, d=136, len=1, addr="10.244.0.150"),
     (" 6  path_refuse              ICMP 3/4 MTU 1450 from 10.244.0.150 to the sender, "
     "for 136 Fragmentation needed")),
    (step(Stage.ICMP_ERROR, flag=1, a=3, b=13, d=181, len=6, addr="10.96.0.10"),
     (" 6  path_refuse              reset from 10.96.0.10 to the sender, "
     "for 181 Policy denied by denylist")),
    (step(Stage.ICMP_ERROR, flag=1, a=3, d=196, len=58, addr="fd00::150"),
     (" 6  path_refuse              ICMPv6 3/0 from fd00::150 to the sender, "
     "for 196 TTL exceeded")),
    (step(Stage.DELIVER, a=2826, b=29, c=27914),
     "11  hook_to_container        to endpoint 2826, ifindex 29, identity 27914"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "line"), LINES, ids=[line[:60] for _, line in LINES])
def test_step_line(one: Step, line: str):
    """Row of the table, function, what it saw, which entry it used, and its drop."""
    assert step_line(one) == line


def test_every_stage_has_a_line():
    """No stage of the .def file is without a text here."""
    assert set(STAGE_INFO) == {one.stage for one, _ in LINES}


def test_unknown_stage_is_not_an_error():
    """Steps of a newer library still print."""
    assert step_line(
        step(Stage.PARSE, a=1).__class__(99, 0, 0, 0, 0, 0, 0, 0, ip_address("::"))
    ) == (" ?  stage 99")


def test_walk_lines_name_the_rule_behind_an_entry():
    """With the rules at hand the policy line tells which one spoke."""
    policy = step(Stage.POLICY_EGRESS, flag=1, a=7, b=4, c=25002, d=2825, len=6)
    assert policy_rule_id(policy) == 7
    assert walk_lines([policy], {7: "allow all of it"}) == [
        (
            " 4  stage_policy(EGRESS)     endpoint 2825, identity 25002, TCP: allow by entry all, "
            "rule 7: allow all of it"
        )
    ]


def test_policy_rule_id_of_a_default_deny_is_none():
    """Without an entry there is no rule, whatever lies in the words."""
    assert policy_rule_id(step(Stage.POLICY_EGRESS, drop=Drop.POLICY_DENIED, a=9)) == 0


def _events() -> list[Event]:
    """Two packets of one flow in one batch, a trace between, then another flow."""
    first = [step(Stage.PARSE, a=0x800, b=1), step(Stage.CT_EGRESS, len=6)]
    other = event(type=2, hash=9, time_ns=5, step=step(Stage.DELIVER))
    steps = [event(type=2, hash=7, time_ns=5, step=one) for one in first + first]
    return [steps[0], event(type=4), *steps[1:], other]


def test_walk_from_events_parts_packets():
    """One walk a packet: a repeated stage is the next packet of the same flow and time."""
    walks = walk_from_events(_events())
    assert [(walk.hash, len(walk.lines)) for walk in walks] == [(7, 2), (7, 2), (9, 1)]


def test_walk_from_records_agrees_with_events():
    """The same packets come out of the ndjson stream."""
    events = _events()
    records = [event_record(one) for one in events]
    assert walk_from_records(records) == walk_from_events(events)
