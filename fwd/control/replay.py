"""Replay: the datapath offline, one JSON line in, one JSON line out; or a capture file in.

The same C code as live, unprivileged: no sockets, no devices, no clock but the steps' own. Every
run starts clean and, for one seed, always says the same. The contract of steps and answers:

- packet: ``{"at": s, "port": endpoint name | "cilium_host" | "netdev", "frame": hex}``, on
  ``netdev`` with ``"hook": "to-netdev"`` for a frame on its way out; optional ``gso_size``,
  ``csum_start``, ``csum_offset``. ``{"at": s, "port": "overlay", "outer_src": ip, "outer_dst": ip,
  "payload": hex}`` for a UDP payload of the tunnel port, its VXLAN header first.
- control: ``{"at": s, "reload": file}`` (relative to the working directory, else to the node
  file's), ``{"at": s, "sweep": true}``, ``{"dump": table}``; answered ``{"n", "ok": true}``, dumps
  with ``"rows"``. Tables: ct, ipcache, lb, policy, lxc, nat, metrics; ``nat`` has no rows
  in this version.
- a packet answers ``{"n", "verdict", "drop", "ct", "src_identity", "dst_identity", "rule",
  "trace", "out"}``. ``out`` rows are ``{"port", "frame"}``; towards the tunnel ``{"port":
  "overlay", "remote", "vni", "udp_payload", "frame"}`` where ``frame`` is the inner one. What the
  slow path answers to a punted frame stands in ``out`` too.
- a bad line answers ``{"n", "error": "line N: ..."}``, the run goes on and ends with exit code 1.

``n`` counts steps from 0, N lines from 1; blank lines are no steps. Time must not go backwards.

Two nodes (``--peer``): what a node sends into the underlay arrives at the other one. The answer has
one key more, ``"peer"``: the other node's answer for that packet, without ``n``, or null when
nothing was sent to it. ``"node": 2`` in any step means the peer (its ports, its tables), and then
``"peer"`` is node 1's answer. Both nodes share one clock.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwd.config.load import ConfigError
from fwd.control.replay_node import ReplayNode
from fwd.control.replay_step import StepError, build_packet, parse_step
from fwd.datapath.errors import DatapathError
from fwd.datapath.packet import PORT_OVERLAY, Packet
from fwd.observe.pcap import PcapError, PcapWriter, read_pcap, unwrap_overlay, wrap_overlay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from fwd.control.replay_step import Step
    from fwd.datapath.packet import Outcome

__all__ = ["Replay", "replay_main"]

NS = 1_000_000_000
Sent = tuple[ReplayNode, "Outcome", dict[str, Any]]


class Replay:
    """One or two nodes and the clock they share."""

    def __init__(self, config: Path, *, peer: Path | None = None, seed: int = 0) -> None:
        """Load the node files into clean datapaths.

        Raises:
            ConfigError: a node file is wrong.
            DatapathError: the tables cannot be made.
        """
        self.nodes = [ReplayNode(config, seed=seed)]
        if peer is not None:
            self.nodes.append(ReplayNode(peer, seed=seed))
        self.now_ns = 0
        self.notes = [line for node in self.nodes for line in node.node.warnings]
        """Warnings not yet told to the user."""
        self.sent: list[Sent] = []
        """Of the last packet: who decided, what, and its answer."""

    def close(self) -> None:
        """Free the tables."""
        for node in self.nodes:
            node.close()

    def step(self, line: str) -> dict[str, Any]:
        """Do one step and return its answer without ``n``.

        Raises:
            StepError: the line is no step, or its step cannot be done; nothing was changed.
        """
        self.sent = []
        step = parse_step(line)
        if step.node > len(self.nodes):
            raise StepError("node: there is no second node, give its file with --peer")
        node = self.nodes[step.node - 1]
        if step.kind == "port":
            packet = build_packet(step, node.world.ports)
            self._advance(step.at_ns)
            return self.packet(node, packet)
        self._advance(step.at_ns)
        return self._control(node, step)

    def packet(self, node: ReplayNode, packet: Packet) -> dict[str, Any]:
        """Send one packet into ``node`` now, and what it sends into the underlay to its peer."""
        result = node.run(self.now_ns, packet)
        self.sent = [(node, result.outcome, result.answer)]
        if len(self.nodes) == 1:
            return result.answer
        other = self.nodes[1 - self.nodes.index(node)]
        arrived = other.from_underlay(node.world, result.outcome)
        if arrived is None:
            return result.answer | {"peer": None}
        far = other.run(self.now_ns, arrived)
        self.sent.append((other, far.outcome, far.answer))
        return result.answer | {"peer": far.answer}

    def _advance(self, at_ns: int | None) -> None:
        if at_ns is None:
            return
        if at_ns < self.now_ns:
            raise StepError(
                f"at: {at_ns / NS:g} is before {self.now_ns / NS:g}, time never goes backwards"
            )
        self.now_ns = at_ns

    def _control(self, node: ReplayNode, step: Step) -> dict[str, Any]:
        if step.kind == "dump":
            return {"ok": True, "rows": node.dump(step.fields["dump"])}
        if step.kind == "sweep":
            node.sweep(self.now_ns // NS)
            return {"ok": True}
        path = Path(step.fields["reload"])
        if not path.exists():
            path = node.node.path.parent / path
        try:
            self.notes += node.reload(path)
        except (ConfigError, DatapathError) as error:
            raise StepError(f"reload: {error}") from None
        return {"ok": True}


def replay_main(  # noqa: PLR0913 - one argument an option of the command
    config: Path,
    *,
    steps_in: TextIO,
    out: TextIO,
    peer: Path | None = None,
    pcap_in: Path | None = None,
    pcap_out: Path | None = None,
    port: str | None = None,
    seed: int = 0,
) -> int:
    """Run a replay to the end of its input.

    Args:
        config: node file.
        steps_in: step lines; not read when ``pcap_in`` is given.
        out: gets one answer a step, flushed line by line.
        peer: node file of the second node.
        pcap_in: capture file whose frames go into ``port``, at their times since the first.
        pcap_out: capture file of what came out, underlay packets with their outer headers.
        port: of ``pcap_in``; on ``overlay`` the frames are underlay packets.
        seed: hash seed of the tables.

    Returns:
        0, or 1 when a line was bad or nothing could be started; stderr has the reasons.
    """
    with ExitStack() as stack:
        try:
            replay = Replay(config, peer=peer, seed=seed)
            stack.callback(replay.close)
            writer = None
            if pcap_out is not None:
                writer = PcapWriter(stack.enter_context(pcap_out.open("wb")))
            if pcap_in is None:
                answers = _answer_lines(replay, steps_in)
            else:
                answers = _answer_pcap(replay, pcap_in, port)
            return _write_answers(replay, answers, out, writer)
        except (ConfigError, DatapathError, PcapError, StepError) as error:
            _tell(str(error))
        except OSError as error:
            _tell(f"{error.filename or 'replay'}: {error.strerror}, check the path")
    return 1


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _answer_lines(replay: Replay, lines: TextIO) -> Iterator[dict[str, Any]]:
    if isinstance(lines, io.TextIOWrapper):
        lines.reconfigure(errors="replace")  # bytes that are no text make a bad line, not an end
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            answer = replay.step(line)
        except StepError as error:
            answer = {"error": f"line {number}: {error}"}
        yield answer


def _answer_pcap(replay: Replay, path: Path, port: str | None) -> Iterator[dict[str, Any]]:
    node = replay.nodes[0]
    number = node.world.ports.get(port or "")
    if number is None:
        names = ", ".join(node.world.ports)
        raise StepError(f"--port {port}: no such port or endpoint, write one of {names}")
    tunnel_port = node.world.settings.tunnel_port
    first_ns: int | None = None
    with path.open("rb") as file:
        for count, (time_ns, frame) in enumerate(read_pcap(file, str(path)), start=1):
            first_ns = time_ns if first_ns is None else first_ns
            replay.now_ns = max(replay.now_ns, time_ns - first_ns)  # captures may be out of order
            packet: Packet | None = Packet(frame, number)
            if number == PORT_OVERLAY:
                packet = _overlay_packet(frame, tunnel_port)
            if packet is None:
                replay.sent = []
                yield {"error": f"record {count}: not a whole UDP datagram to port {tunnel_port}"}
            else:
                yield replay.packet(node, packet)


def _overlay_packet(frame: bytes, tunnel_port: int) -> Packet | None:
    inner = unwrap_overlay(frame, tunnel_port)
    if inner is None:
        return None
    return Packet(inner.payload, PORT_OVERLAY, outer_src=inner.src, outer_dst=inner.dst)


def _write_answers(
    replay: Replay, answers: Iterator[dict[str, Any]], out: TextIO, writer: PcapWriter | None
) -> int:
    status = 0
    _tell_notes(replay)
    for count, answer in enumerate(answers):
        _tell_notes(replay)
        if "error" in answer:
            _tell(answer["error"])
            status = 1
        out.write(json.dumps({"n": count} | answer) + "\n")
        out.flush()
        if writer is not None:
            _capture(replay, writer)
    return status


def _tell_notes(replay: Replay) -> None:
    for note in replay.notes:
        _tell(f"warning: {note}")
    replay.notes.clear()


def _capture(replay: Replay, writer: PcapWriter) -> None:
    """Write what came out of the nodes for the last packet."""
    for node, outcome, answer in replay.sent:
        for row in answer["out"]:
            frame = bytes.fromhex(row["frame"])
            if row["port"] == "overlay" and outcome.remote is not None:
                frame = wrap_overlay(
                    outcome.frame,
                    node.world.ip,
                    outcome.remote,
                    port=node.world.settings.tunnel_port,
                    flow_hash=outcome.hash,
                )
            writer.write(replay.now_ns, frame)
