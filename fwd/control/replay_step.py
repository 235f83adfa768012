"""Lines of a replay as steps: what a driver may ask, checked key by key.

Pure. The contract is in docs/operations.md (`fwd replay`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from fwd.control.dumps import DUMP_TABLES
from fwd.control.world import HOST_PORTS
from fwd.datapath.packet import PORT_NETDEV, PORT_OVERLAY, Packet
from fwd.model.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Step", "StepError", "build_packet", "parse_step"]

NS = 1_000_000_000
AT_MAX_S = 1 << 31  # conntrack keeps seconds in 32 bits, and lifetimes are added to them
FRAME_MAX = 65535 + 18  # the longest IP packet behind Ethernet and a VLAN tag
PAYLOAD_MAX = FRAME_MAX + 8
KINDS = ("port", "reload", "sweep", "dump")
FRAME_KEYS = frozenset(
    {"at", "node", "port", "frame", "hook", "gso_size", "csum_start", "csum_offset"}
)
OVERLAY_KEYS = frozenset({"at", "node", "port", "outer_src", "outer_dst", "payload"})


class StepError(Exception):
    """A line is no step; the text is "key: what is wrong, what to do"."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step, before its port is looked up."""

    kind: str
    """One of ``KINDS``; ``port`` = a packet."""
    at_ns: int | None
    """None = the clock stays; only dumps may leave it out."""
    node: int
    """1, or 2 = the peer."""
    fields: Mapping[str, Any]


def parse_step(line: str) -> Step:
    """Read one JSON line.

    Raises:
        StepError: not an object, unknown or missing keys, a wrong type.
    """
    try:
        fields = json.loads(line, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise StepError(f"not JSON: {error}, write one object a line") from None
    if not isinstance(fields, dict):
        raise StepError("not an object, write one JSON object a line")
    kinds = [kind for kind in KINDS if kind in fields]
    if len(kinds) != 1:
        raise StepError(f"a step has one of the keys {', '.join(KINDS)}, this one has {len(kinds)}")
    kind = kinds[0]
    known = {kind, "at", "node"}
    if kind == "port":
        known = set(OVERLAY_KEYS if fields["port"] == "overlay" else FRAME_KEYS)
    for key in fields:
        if key not in known:
            near = get_close_matches(key, sorted(known), n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}"
            raise StepError(f"{key}: unknown key, {hint}")
    _check_control(kind, fields)
    node = fields.get("node", 1)
    if node not in (1, 2) or isinstance(node, bool):
        raise StepError(f"node: {node!r} is not a node, write 1 or 2 (the --peer)")
    return Step(kind, _at_ns(kind, fields), int(node), fields)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _check_control(kind: str, fields: Mapping[str, Any]) -> None:
    if kind == "reload" and not isinstance(fields[kind], str):
        raise StepError("reload: write the node file's path")
    if kind == "sweep" and fields[kind] is not True:
        raise StepError("sweep: write true")
    if kind == "dump" and fields[kind] not in DUMP_TABLES:
        raise StepError(f"dump: {fields[kind]!r} is no table, write {', '.join(DUMP_TABLES)}")


def _at_ns(kind: str, fields: Mapping[str, Any]) -> int | None:
    at = fields.get("at")
    if at is None and kind == "dump":
        return None
    if at is None:
        raise StepError("at: missing, add the time in seconds")
    if isinstance(at, bool) or not isinstance(at, int | Decimal):
        raise StepError(f"at: {at!r} is not a time, write seconds as a number")
    if not 0 <= at < AT_MAX_S:
        raise StepError(f"at: {at} is out of range, write 0 to {AT_MAX_S} seconds")
    return int(at * NS)


def build_packet(step: Step, ports: Mapping[str, int]) -> Packet:
    """Return the packet of a ``port`` step.

    Args:
        step: of kind ``port``.
        ports: the names of the node's world.

    Raises:
        StepError: no such port, bad hex, or offsets that are no numbers.
    """
    fields = step.fields
    name = fields["port"]
    if not isinstance(name, str) or name not in ports:
        raise StepError(_no_port(name, ports))
    port = ports[name]
    if port == PORT_OVERLAY:
        return Packet(
            _bytes(fields, "payload", PAYLOAD_MAX),
            port,
            outer_src=_address(fields, "outer_src"),
            outer_dst=_address(fields, "outer_dst"),
        )
    hook = fields.get("hook")
    if hook is not None and (hook != "to-netdev" or port != PORT_NETDEV):
        raise StepError(f'hook: {hook!r} is not one, write "to-netdev" with port netdev or none')
    offsets = [_number(fields, key) for key in ("csum_start", "csum_offset")]
    if offsets.count(None) == 1:
        raise StepError("csum_start: csum_start and csum_offset only work together, write both")
    return Packet(
        _bytes(fields, "frame", FRAME_MAX),
        port,
        to_netdev=hook is not None,
        gso_size=_number(fields, "gso_size") or 0,
        csum_start=offsets[0],
        csum_offset=offsets[1],
    )


def _no_port(name: object, ports: Mapping[str, int]) -> str:
    near = get_close_matches(str(name), list(ports), n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(ports)}"
    kind = "port" if name in HOST_PORTS else "port or endpoint"
    return f"port: no {kind} is named {name!r}, {hint}"


def _bytes(fields: Mapping[str, Any], key: str, max_len: int) -> bytes:
    text = fields.get(key)
    if not isinstance(text, str):
        raise StepError(f"{key}: missing or not text, write the bytes in hex")
    try:
        data = bytes.fromhex(text)
    except ValueError:
        raise StepError(f"{key}: not hex, write two digits a byte") from None
    if len(data) > max_len:
        raise StepError(f"{key}: {len(data)} bytes, at most {max_len} fit")
    return data


def _address(fields: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - ip_address' union
    try:
        return parse_address(fields.get(key))
    except ValueError as error:
        raise StepError(f"{key}: {error}") from None


def _number(fields: Mapping[str, Any], key: str) -> int | None:
    number = fields.get(key)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 65535:
        raise StepError(f"{key}: {number!r} is not a length, write 0 to 65535")
    return number
