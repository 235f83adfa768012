"""The networks that are compared: pods on two nodes whose only link is a veth with MTU 1500."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.beds.fastd import Fastd
from benchmarks.beds.fwd import Fwd, FwdPlain
from benchmarks.beds.kernel import Bridge, KernelVxlan
from benchmarks.beds.ovs import Ovs

if TYPE_CHECKING:
    from benchmarks.beds.bed import Bed

__all__ = ["BEDS", "REFERENCE", "SAME_NODE_REFERENCE"]

REFERENCE = KernelVxlan.name
"""The bed whose figure of the same round is the denominator of every ratio."""
SAME_NODE_REFERENCE = Bridge.name

BEDS: dict[str, type[Bed]] = {
    bed.name: bed for bed in (KernelVxlan, Fwd, FwdPlain, Ovs, Fastd, Bridge)
}
