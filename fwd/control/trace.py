"""Trace: one packet through a node's tables, told stage by stage.

Pure but for the datapath it is given, which it changes: the daemon hands in a view of its own
(``Datapath.view``), the command line a fresh one made of a node file. A state of conntrack that is
asked for is made true by first running the packets that create it, never by writing entries.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import dpkt

from fwd.control.answer import packet_answer
from fwd.control.microflow import FlowError, Microflow, Place, parse_microflow
from fwd.control.trace_frames import Segment, build_error, build_frame
from fwd.control.trace_text import stage_records, verdict_result, verdict_text
from fwd.datapath.packet import CT_NONE, PORT_HOST, PORT_OVERLAY, Packet
from fwd.model.enums import CT_TEXT, Verdict
from fwd.model.identity import WORLD
from fwd.observe.dissect import dissect
from fwd.observe.pcap import unwrap_overlay
from fwd.observe.words import drop_name

if TYPE_CHECKING:
    from fwd.config.schema import NodeFile
    from fwd.control.world import World
    from fwd.datapath.binding import Datapath
    from fwd.datapath.packet import Outcome
    from fwd.model.rows import Address

__all__ = ["CT_STATES", "TraceError", "TraceRequest", "trace"]

CT_STATES: Final = ("new", "established", "reply", "related")
_SPORT_FIRST, _SPORT_TRIES = 43512, 16
_FRAME_MAX = 65535 + 18
_VXLAN_HLEN = 8
_U16_MAX = 65535
_SYN, _ACK = dpkt.tcp.TH_SYN, dpkt.tcp.TH_ACK


class TraceError(ValueError):
    """The request cannot be traced; the text says why and what to write."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """What to trace: a microflow, or a frame and the port it comes in at."""

    flow: str | None = None
    ct: str | None = None
    """One of ``CT_STATES``; None = as the tables have it."""
    sport: int | None = None
    """None = one that no tracked connection has; ICMP: the echo identifier."""
    frame: bytes | None = None
    """On port ``overlay`` the whole underlay frame."""
    port: str | None = None
    hook: str | None = None
    """``to-netdev`` = a frame of port netdev on its way out; None = the port's own hook."""
    gso_size: int | None = None
    """Payload bytes of each packet that a frame stands for; None = it is one packet."""
    csum_start: int | None = None
    """With ``csum_offset``: the L4 checksum is partial, as the kernel hands it over."""
    csum_offset: int | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if (self.flow is None) == (self.frame is None):
            raise TraceError("give either a microflow or a frame to trace")
        if (self.frame is None) != (self.port is None):
            raise TraceError("a frame and the port it comes in at go together")
        if self.frame is not None and (self.ct or self.sport is not None):
            raise TraceError("--ct and --sport are for microflows: a frame is what it is")
        self._check_frame()
        if self.frame is not None and len(self.frame) > _FRAME_MAX:
            raise TraceError(f"the frame has {len(self.frame)} bytes, at most {_FRAME_MAX} fit")
        if self.ct is not None and self.ct not in CT_STATES:
            raise TraceError(f"{self.ct!r} is no state, write one of {', '.join(CT_STATES)}")
        if self.sport is not None and not 0 < self.sport <= 65535:
            raise TraceError(f"{self.sport} is no source port, write 1 to 65535")

    def _check_frame(self) -> None:
        offsets = (self.csum_start, self.csum_offset)
        numbers = (self.gso_size, *offsets)
        if self.frame is None and (self.hook or any(one is not None for one in numbers)):
            raise TraceError(
                "--hook, --gso-size, --csum-start and --csum-offset are for frames: "
                "a microflow comes in where its source is, as one whole packet"
            )
        if self.hook is not None and (self.hook != "to-netdev" or self.port != "netdev"):
            raise TraceError(
                f"{self.hook!r} is no hook to enter at, write to-netdev with port netdev, or none"
            )
        if any(one is not None for one in numbers) and self.port == "overlay":
            raise TraceError("what comes out of the tunnel is one whole packet: no --gso-size")
        if offsets.count(None) == 1:
            raise TraceError("--csum-start and --csum-offset only work together, write both")
        for one in numbers:
            if one is not None and not 0 <= one <= _U16_MAX:
                raise TraceError(f"{one} is not a length, write 0 to {_U16_MAX}")


def trace(
    dp: Datapath, node: NodeFile, world: World, request: TraceRequest, now_ns: int
) -> dict[str, Any]:
    """Trace one packet.

    Args:
        dp: tables of ``world``; the trace changes them.
        node: for the names of peers.
        world: what the tables were made of.
        request: what to trace.
        now_ns: the clock of the tables' entries.

    Returns:
        ``packet`` (the answer of replay, with ``summary``, ``port``, ``frame`` and ``stages``),
        ``setup`` (packets that made its conntrack state, likewise), ``result`` (forwarded, dropped
        or rejected) and ``verdict`` (one line).

    Raises:
        TraceError: there is no such thing to trace on this node.
    """
    tracer = _Tracer(dp, node, world, now_ns)
    if request.frame is not None:
        return tracer.frame(request.frame, request)
    try:
        flow = parse_microflow(request.flow or "", node, world)
    except FlowError as error:
        raise TraceError(str(error)) from None
    return tracer.flow(flow, request)


class _Tracer:
    """One trace on its way."""

    def __init__(self, dp: Datapath, node: NodeFile, world: World, now_ns: int) -> None:
        self._dp = dp
        self._world = world
        self._now_ns = now_ns
        self._peers: dict[Address, str] = {peer.ip: peer.name for peer in node.peers}
        self._setup: list[dict[str, Any]] = []

    # ---- frames ----

    def frame(self, frame: bytes, request: TraceRequest) -> dict[str, Any]:
        """Trace a given frame."""
        port = request.port or ""
        number = self._world.ports.get(port)
        if number is None:
            known = ", ".join(self._world.ports)
            raise TraceError(f"no port or endpoint is named {port!r}, write one of {known}")
        packet = Packet(
            frame, number, to_netdev=request.hook is not None, gso_size=request.gso_size or 0,
            csum_start=request.csum_start, csum_offset=request.csum_offset,
        )  # fmt: skip
        if number == PORT_OVERLAY:
            tunnel_port = self._world.settings.tunnel_port
            inner = unwrap_overlay(frame, tunnel_port)
            if inner is None:
                raise TraceError(f"the frame is not a whole UDP datagram to port {tunnel_port}: "
                                 "give the underlay's frame, with its outer headers")  # fmt: skip
            packet = Packet(inner.payload, number, outer_src=inner.src, outer_dst=inner.dst)
        record, outcome = self._run(packet, port)
        return self._result(record, outcome)

    # ---- microflows ----

    def flow(self, flow: Microflow, request: TraceRequest) -> dict[str, Any]:
        """Trace a flow's packet in the state that was asked for."""
        tries = 1 if request.sport is not None else _SPORT_TRIES
        first = request.sport or _SPORT_FIRST
        for sport in range(first, first + tries):
            one = Segment(flow.src, flow.dst, flow.proto, sport, flow.dport)
            self._setup = []
            record, outcome = self._segment(flow.place, one, request.ct)
            fresh = outcome.ct == CT_NONE or CT_TEXT[outcome.ct] == (request.ct or "new")
            if fresh or request.sport is not None:
                break
        self._check_state(request, outcome)
        return self._result(record, outcome)

    def _segment(
        self, place: Place, one: Segment, state: str | None
    ) -> tuple[dict[str, Any], Outcome]:
        if state in {"reply", "related"}:
            if any(row.frontend == one.dst for row in self._world.services):
                raise TraceError(
                    f"{one.dst} is a service, it opens no connections: replies to one come from a "
                    "backend, write that as the source and the client as the destination"
                )
            opener = replace(one, src=one.dst, dst=one.src, sport=one.dport, dport=one.sport)
            if one.proto == "icmp":
                opener = replace(opener, sport=one.sport, dport=0)
            arrived = self._open(self._locate(one.dst), opener)
            if state == "related":
                error = build_error(one.src, one.dst, arrived[14:], *self._macs(place))
                return self._run(self._packet(place, error, one.src), place.name)
            one = replace(one, flags=_SYN | _ACK, answer=True)
        elif state == "established":
            self._open(place, one)
            one = replace(one, flags=_ACK)
        frame = build_frame(one, *self._macs(place))
        return self._run(self._packet(place, frame, one.src), place.name)

    def _open(self, place: Place, one: Segment) -> bytes:
        """Run the first packet of a connection; return the frame as its receiver gets it."""
        packet = self._packet(place, build_frame(one, *self._macs(place)), one.src)
        record, outcome = self._run(packet, place.name)
        self._setup.append(record)
        if outcome.drop:
            raise TraceError(
                f"there is no such connection: its first packet, {record['summary']} from "
                f"{place.name}, is dropped ({outcome.drop} {drop_name(outcome.drop)}); trace that "
                "one, or leave --ct out"
            )
        tunnelled = outcome.verdict == Verdict.TX_UNDERLAY and outcome.port == PORT_OVERLAY
        return outcome.frame[_VXLAN_HLEN:] if tunnelled else outcome.frame

    def _check_state(self, request: TraceRequest, outcome: Outcome) -> None:
        """Refuse to show another state than was asked for."""
        if request.ct is None:
            return
        if outcome.ct == CT_NONE:
            if not outcome.drop:
                raise TraceError("conntrack is not asked for this packet: leave --ct out")
        elif CT_TEXT[outcome.ct] != request.ct:
            raise TraceError(
                f"conntrack calls this packet {CT_TEXT[outcome.ct]}, not {request.ct}: the tables "
                "have a connection of these ports; give another --sport, or leave --ct out"
            )

    # ---- where packets come in ----

    def _locate(self, address: Address) -> Place:
        """Where packets from ``address`` enter; by the host when no pod and no peer has it."""
        for row in self._world.lxc:
            if row.addr == address and not row.host:
                return Place(self._world.names[row.lxc_id], row.lxc_id)
        known = self._dp.ipcache_lookup(address)
        if known is not None and known.tunnel_endpoint is not None:
            peer = known.tunnel_endpoint
            return Place(self._peers.get(peer, str(peer)), PORT_OVERLAY, peer)
        return Place("host", PORT_HOST)

    def _macs(self, place: Place) -> tuple[bytes, bytes]:
        """(source, destination) of a frame that enters there."""
        for row in self._world.endpoints:
            if row.lxc_id == place.port:
                return row.mac, row.node_mac
        return self._world.settings.host_mac, self._world.settings.router_mac

    def _packet(self, place: Place, frame: bytes, src: Address) -> Packet:
        if place.peer is None:
            return Packet(frame, place.port)
        vxlan = struct.pack("!II", 0x08 << 24, self._vni(place.peer, src) << 8)
        return Packet(vxlan + frame, place.port, outer_src=place.peer, outer_dst=self._world.ip)

    def _vni(self, peer: Address, src: Address) -> int:
        """What an honest peer says of a packet from ``src``."""
        row = next((row for row in self._world.peers if row.ip == peer), None)
        if row is not None and row.vni is not None:
            return row.vni
        known = self._dp.ipcache_lookup(src)
        return known.identity & 0xFFFFFF if known is not None else WORLD

    # ---- running ----

    def _run(self, packet: Packet, port: str) -> tuple[dict[str, Any], Outcome]:
        (outcome,) = self._dp.run(self._now_ns, [packet])
        inner = packet.frame[_VXLAN_HLEN:] if packet.port == PORT_OVERLAY else packet.frame
        record = {
            "summary": dissect(inner).connection,
            "port": port,
            "frame": packet.frame.hex(),
            "stages": stage_records(outcome.steps, packet, self._world.rules),
        }
        return record | packet_answer(self._world, packet, outcome), outcome

    def _result(self, record: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
        return {
            "setup": self._setup,
            "packet": record,
            "result": verdict_result(outcome),
            "verdict": verdict_text(record, outcome, self._world.names, self._peers),
        }
