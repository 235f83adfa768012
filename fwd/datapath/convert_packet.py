"""Packets, outcomes and events to the structs of csrc/abi.h and back.

``ffi`` and ``lib`` are arguments so that binding.py stays the only importer of the extension.
"""

from __future__ import annotations

from typing import Any

from fwd.datapath.convert import addr_bytes, addr_py
from fwd.datapath.packet import Event, Outcome, Packet, Punt, Step
from fwd.model.enums import Verdict


def packet_fill(ffi: Any, lib: Any, pkt: Any, packet: Packet) -> Any:
    """Fill a ``struct fwd_pkt``; the returned buffer must outlive it."""
    headroom = int(lib.FWD_HEADROOM)
    size = headroom + len(packet.frame)
    buffer = ffi.new("uint8_t[]", size)
    ffi.buffer(buffer)[headroom:size] = packet.frame
    pkt.buf, pkt.size, pkt.off, pkt.len = buffer, size, headroom, len(packet.frame)
    pkt.port = packet.port
    pkt.hook = lib.FWD_HOOK_TO_NETDEV if packet.to_netdev else lib.FWD_HOOK_BY_PORT
    pkt.gso_size = packet.gso_size
    if packet.csum_start is not None and packet.csum_offset is not None:
        pkt.vnet_flags = lib.FWD_VNET_NEEDS_CSUM
        pkt.csum_start, pkt.csum_offset = packet.csum_start, packet.csum_offset
    pkt.outer_src.b = addr_bytes(packet.outer_src)
    pkt.outer_dst.b = addr_bytes(packet.outer_dst)
    return buffer


def step_py(ffi: Any, row: Any) -> Step:
    """Step of a ``struct fwd_step``."""
    return Step(
        int(row.stage),
        int(row.drop),
        int(row.flag),
        int(row.len),
        int(row.a),
        int(row.b),
        int(row.c),
        int(row.d),
        addr_py(ffi, row.addr),
    )


def outcome_py(ffi: Any, lib: Any, pkt: Any, out: Any) -> Outcome:
    """Outcome of a packet and its ``struct fwd_out``."""
    return Outcome(
        verdict=Verdict(out.verdict),
        drop=int(out.drop),
        ct=int(out.ct),
        match=int(out.match),
        dir=int(out.dir),
        trace=tuple(out.trace[i] for i in range(out.n_trace)),
        port=int(out.port),
        src_identity=int(out.src_identity),
        dst_identity=int(out.dst_identity),
        rule_id=int(out.rule_id),
        policy_endpoint=int(out.policy_endpoint),
        hash=int(out.hash),
        vni=int(out.vni),
        remote=addr_py(ffi, out.remote) if out.port == lib.FWD_PORT_OVERLAY else None,
        frame=bytes(ffi.buffer(pkt.buf + pkt.off, pkt.len)),
        steps=tuple(step_py(ffi, out.steps[i]) for i in range(out.n_steps)),
    )


def event_py(ffi: Any, row: Any) -> Event:
    """Event of a ``struct fwd_event``."""
    plain = (
        "time_ns",
        "type",
        "subtype",
        "source",
        "hash",
        "len_orig",
        "ct",
        "dir",
        "src_identity",
        "dst_identity",
        "dst_id",
        "ifindex",
        "rule_id",
        "verdict",
        "dst_port",
        "proto",
        "match",
        "policy_endpoint",
    )
    return Event(
        **{name: int(getattr(row, name)) for name in plain},
        orig_ip=addr_py(ffi, row.orig_ip),
        data=bytes(ffi.buffer(row.data, row.len_cap)),
        step=step_py(ffi, row.step),
    )


def punt_py(ffi: Any, row: Any) -> Punt:
    """Punt of a ``struct fwd_punt``."""
    return Punt(int(row.port), int(row.time_ns), bytes(ffi.buffer(row.data, row.len)))
