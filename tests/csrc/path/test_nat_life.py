"""Masquerading over time: packets both ways, closing, a full table, the clock and the sweep.

The twins of conntrack and of the mappings (tests/models) walk beside the datapath; after every step
both know the same mappings. What 4.10 says of each mapping's life is in here.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fwd.control.apply import apply, diff
from fwd.datapath.binding import Datapath, Outcome
from fwd.datapath.packet import PORT_HOST, PORT_NETDEV, Packet
from fwd.model.enums import Drop, Verdict
from tests.csrc.path.build import build
from tests.csrc.path.rows import DEFAULTS, balance, world_of
from tests.models import ct as twin
from tests.models.nat import Flow, NatModel

WORLD = world_of("masquerade")
NODE, PEER = "192.168.56.105", "203.0.113.9"
PODS = {"10.244.0.108": ("curl", 2825), "10.244.0.109": ("local", 2827)}
FLAGS = {"S": 2, "SA": 18, "A": 16, "FA": 17, "R": 4}
TCP, UDP = 6, 17
SEC = 1_000_000_000

flows = st.builds(
    Flow,
    proto=st.sampled_from([TCP, UDP]),
    saddr=st.sampled_from([*PODS, NODE]),
    sport=st.sampled_from([80, 40000, 65535]),
    daddr=st.just(PEER),
    dport=st.sampled_from([53, 443]),
)
flags = st.sampled_from(sorted(FLAGS))


def mapped(address: str) -> bytes:
    """As the tables keep it."""
    return bytes(10) + b"\xff\xff" + IPv4Address(address).packed


def frame(flow: Flow, flags: str, port: str) -> bytes:
    """A packet of the flow, as it stands at a port."""
    l4 = {"sport": flow.sport, "dport": flow.dport}
    kind = {"tcp": {**l4, "flags": flags}} if flow.proto == TCP else {"udp": l4}
    return build({**DEFAULTS[port], "src": flow.saddr, "dst": flow.daddr, **kind})


def ports(out: Outcome) -> tuple[str, int, str, int]:
    """Source and destination of what came out."""
    sport, dport = struct.unpack("!HH", out.frame[34:38])
    return (str(IPv4Address(out.frame[26:30])), sport,
            str(IPv4Address(out.frame[30:34])), dport)  # fmt: skip


class Life(RuleBasedStateMachine):
    """Any order of packets, pauses and sweeps."""

    @initialize(cap=st.integers(2, 12), seed=st.integers(0, 2**64 - 1))
    def start(self, cap: int, seed: int) -> None:
        """A node with room for a few mappings."""
        self.dp = Datapath.create(replace(WORLD.params, nat=cap, hash_seed=seed))
        apply(self.dp, diff(None, WORLD))
        self.ct, self.nat = twin.CtTwin(twin.Limits()), NatModel(cap)
        self.now, self.sent = 1000, 0

    def teardown(self) -> None:
        """In = out, whatever happened."""
        if hasattr(self, "dp"):
            sides = balance(self.dp.metrics())
            assert sides["in"] == sides["out"] == self.sent
            self.dp.close()

    def run(self, packet: Packet) -> Outcome:
        """One packet, now."""
        self.sent += 1
        return self.dp.run(self.now * SEC, [packet])[0]

    def track(self, flow: Flow, flags: str, hook: str) -> None:
        """What conntrack makes of a packet."""
        packet = twin.Packet(mapped(flow.saddr), mapped(flow.daddr), flow.proto, flow.sport,
                             flow.dport, tcp_flags=FLAGS[flags])  # fmt: skip
        status, key, _, _ = self.ct.lookup(packet, hook, "bidir", self.now)
        if status == twin.NEW:
            for target, entry in self.ct.planned(key, hook, 100, self.now, twin.State()):
                self.ct.entries[target] = entry

    def answers(self, flow: Flow) -> bool:
        """Does conntrack take the packet for the answer to one that came in?"""
        key = twin.Key(mapped(flow.daddr), mapped(flow.saddr), flow.sport, flow.dport, flow.proto)
        return key._replace(flags=twin.IN) in self.ct.entries

    def tracked(self, flow: Flow) -> bool:
        """Has conntrack the flow?"""
        key = twin.Key(mapped(flow.saddr), mapped(flow.daddr), flow.dport, flow.sport, flow.proto)
        return key in self.ct.entries

    @rule(flow=flows, flags=flags)
    def leaves(self, flow: Flow, flags: str) -> None:
        """A pod's packet, or the node's own, on its whole way out."""
        if flow.saddr in PODS:
            name, number = PODS[flow.saddr]
            out = self.run(Packet(frame(flow, flags, name), number))
            assert out.verdict == Verdict.TO_STACK
            self.track(flow, flags, "egress")
        alone = self.answers(flow) or (flow.saddr == NODE and flow.sport < 32768)
        allowed = self.nat.allowed(flow, NODE)
        if flow.saddr == NODE and not alone:
            self.track(flow, flags, "egress")
        out = self.run(Packet(frame(flow, flags, "netdev"), PORT_NETDEV, to_netdev=True))
        assert out.verdict == Verdict.TX_UNDERLAY
        source = ports(out)[:2]
        if alone:
            assert source == (flow.saddr, flow.sport)
            return
        assert source[0] == NODE
        assert source[1] in allowed
        self.nat.map(flow, NODE, source[1])

    @precondition(lambda self: self.nat.mappings)
    @rule(data=st.data(), flags=flags)
    def is_answered(self, data: st.DataObject, flags: str) -> None:
        """The peer answers one of the flows, and the pod gets it."""
        flow, (_, port) = data.draw(st.sampled_from(list(self.nat.mappings.items())))
        back = Flow(flow.proto, flow.daddr, flow.dport, NODE, port)
        out = self.run(Packet(frame(back, flags, "netdev"), PORT_NETDEV))
        assert self.nat.incoming(flow.proto, (flow.daddr, flow.dport), (NODE, port)) is not None
        assert out.verdict == Verdict.TO_STACK
        assert ports(out) == (flow.daddr, flow.dport, flow.saddr, flow.sport)
        if flow.saddr in PODS:
            out = self.run(Packet(out.frame, PORT_HOST))
            assert out.verdict == Verdict.TX_ENDPOINT
            back = Flow(flow.proto, flow.daddr, flow.dport, flow.saddr, flow.sport)
            self.track(back, flags, "ingress")

    @rule(proto=st.sampled_from([TCP, UDP]), port=st.sampled_from([22, 40000, 65535]))
    def is_called(self, proto: int, port: int) -> None:
        """A stranger's packet is the host's, whatever the table holds."""
        out = self.run(Packet(frame(Flow(proto, "203.0.113.10", 53, NODE, port), "S", "netdev"),
                              PORT_NETDEV))  # fmt: skip
        assert (out.verdict, ports(out)[2:]) == (Verdict.TO_STACK, (NODE, port))

    @rule(seconds=st.sampled_from([1, 9, 11, 30, 61, 8001]))
    def waits(self, seconds: int) -> None:
        """Nothing happens by itself."""
        self.now += seconds

    @rule()
    def sweeps(self) -> None:
        """Conntrack first, then what it no longer knows: both halves at once."""
        for tcp in (True, False):
            self.dp.ct_sweep(tcp=tcp, now_s=self.now, cursor=0, budget=1 << 20)
        deleted, cursor = self.dp.nat_sweep(cursor=0, budget=1 << 20)
        self.ct.sweep(self.now)
        assert (deleted, cursor) == (self.nat.sweep(self.tracked), 0)

    @invariant()
    def both_halves_agree(self) -> None:
        """Every mapping has exactly its two halves, and the table holds no other."""
        if not hasattr(self, "dp"):
            return
        rows = list(self.dp.nats())
        out = {
            Flow(row.proto, str(row.saddr), row.sport, str(row.daddr), row.dport): (
                str(row.to_addr), row.to_port)
            for row in rows
            if not row.incoming
        }  # fmt: skip
        assert out == dict(self.nat.mappings)
        back = {
            (row.proto, str(row.saddr), row.sport, str(row.daddr), row.dport): (
                str(row.to_addr), row.to_port)
            for row in rows
            if row.incoming
        }  # fmt: skip
        assert back == {
            (flow.proto, flow.daddr, flow.dport, *target): (flow.saddr, flow.sport)
            for flow, target in out.items()
        }
        stats = self.dp.stats("nat")
        assert (stats.evictions, stats.failures) == (self.nat.evictions, 0)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_ports_run_out_toward_one_destination_and_come_back() -> None:
    """167 when all are taken; who has one goes on, other destinations too, and the sweep frees."""
    with Datapath.create(replace(WORLD.params, nat=1 << 17)) as dp:
        apply(dp, diff(None, WORLD))
        first = Flow(UDP, "10.244.0.108", 40000, PEER, 53)
        sent = bytearray(frame(first, "S", "netdev"))
        sent[40:42] = bytes(2)  # no checksum: only the port is another

        def leave(flow: Flow) -> Outcome:
            packet = Packet(frame(flow, "S", "netdev"), PORT_NETDEV, to_netdev=True)
            return dp.run(SEC, [packet])[0]

        for low in range(32768, 65536, 4096):
            batch = []
            for port in range(low, low + 4096):
                sent[34:36] = port.to_bytes(2)
                batch.append(Packet(bytes(sent), PORT_NETDEV, to_netdev=True))
            assert all(out.verdict == Verdict.TX_UNDERLAY for out in dp.run(SEC, batch))
        other = replace(first, saddr="10.244.0.109")
        refused = leave(other)
        assert refused.drop == Drop.NO_MAPPING_FOR_NAT_MASQUERADE
        assert ports(leave(first))[:2] == (NODE, 40000)
        assert ports(leave(replace(other, dport=54)))[:2] == (NODE, 40000)
        assert ports(leave(replace(other, proto=TCP)))[:2] == (NODE, 40000)
        assert (dp.stats("nat").failures, dp.stats("nat").evictions) == (1, 0)
        # conntrack never saw these flows, so the sweep takes them all
        deleted, _ = dp.nat_sweep(cursor=0, budget=1 << 20)
        assert deleted == 32768 + 2
        assert ports(leave(other))[:2] == (NODE, 40000)


def test_a_taken_port_is_drawn_anew_and_then_the_next_ones_are_tried() -> None:
    """The second flow's port is any of the range; one drawn is kept for the flow's life."""
    drawn = set()
    for seed in range(20):
        with Datapath.create(replace(WORLD.params, hash_seed=seed)) as dp:
            apply(dp, diff(None, WORLD))
            for saddr in PODS:
                flow = Flow(UDP, saddr, 40000, PEER, 53)
                packet = Packet(frame(flow, "S", "netdev"), PORT_NETDEV, to_netdev=True)
                got = {ports(dp.run(at * SEC, [packet])[0])[1] for at in (1, 2, 3)}
                assert len(got) == 1
            drawn |= got
    assert all(32768 <= port <= 65535 for port in drawn)
    assert len(drawn) > 15
