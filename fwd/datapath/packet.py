"""What goes into the datapath and what comes out, as values.

Pure: knows no extension and opens no descriptor. binding.py turns these into struct fwd_pkt,
fwd_out, fwd_step, fwd_event and fwd_punt of csrc/abi.h and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fwd.model.enums import Verdict
    from fwd.model.rows import Address

__all__ = [
    "CT_NONE",
    "OFFLOAD_MERGE_TCP",
    "OFFLOAD_MERGE_UDP",
    "OFFLOAD_UDP_GRO",
    "OFFLOAD_UDP_SEGMENT",
    "PORT_HOST",
    "PORT_NETDEV",
    "PORT_NONE",
    "PORT_OVERLAY",
    "Event",
    "Outcome",
    "Packet",
    "Punt",
    "Step",
]

PORT_NONE = 0
PORT_HOST = 0x10000
PORT_NETDEV = 0x10001
PORT_OVERLAY = 0x10002
CT_NONE = 255

OFFLOAD_UDP_SEGMENT = 1
OFFLOAD_UDP_GRO = 2
OFFLOAD_MERGE_TCP = 4
OFFLOAD_MERGE_UDP = 8


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame (or UDP payload on the overlay port) on its way in."""

    frame: bytes
    port: int
    to_netdev: bool = False
    """Enter at to-netdev instead of the port's own hook."""
    gso_size: int = 0
    csum_start: int | None = None
    """Offset from the frame's first byte; None = checksums are complete."""
    csum_offset: int | None = None
    outer_src: Address | None = None
    outer_dst: Address | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one stage saw; a..d as in csrc/path/step.h."""

    stage: int
    drop: int
    flag: int
    len: int
    a: int
    b: int
    c: int
    d: int
    addr: Address


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a packet."""

    verdict: Verdict
    drop: int
    ct: int
    """enum fwd_ct_status, CT_NONE = conntrack was not asked."""
    match: int
    dir: int
    trace: tuple[int, ...]
    """Observation points in order."""
    port: int
    src_identity: int
    dst_identity: int
    rule_id: int
    policy_endpoint: int
    hash: int
    vni: int
    remote: Address | None
    frame: bytes
    """The frame (or UDP payload) as changed, checksum finished."""
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One record of the event ring; fields as in struct fwd_event."""

    time_ns: int
    type: int
    subtype: int
    source: int
    hash: int
    len_orig: int
    ct: int
    dir: int
    src_identity: int
    dst_identity: int
    dst_id: int
    ifindex: int
    rule_id: int
    verdict: int
    dst_port: int
    proto: int
    match: int
    policy_endpoint: int
    orig_ip: Address
    data: bytes
    step: Step = field(default=Step(0, 0, 0, 0, 0, 0, 0, 0, IPv6Address(0)))


@dataclass(frozen=True, slots=True)
class Punt:
    """A frame the slow path is asked to answer."""

    port: int
    time_ns: int
    data: bytes
