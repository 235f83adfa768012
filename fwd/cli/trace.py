"""`fwd trace`: what would happen to a packet, stage by stage, without sending it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from fwd.cli.options import Form, FormOption, SocketOption
from fwd.cli.render import json_object, paint, print_lines

__all__ = ["EXIT_DROPPED", "EXIT_REJECTED", "trace"]

EXIT_DROPPED, EXIT_REJECTED = 10, 11
_EXIT = {"forwarded": 0, "dropped": EXIT_DROPPED, "rejected": EXIT_REJECTED}
_COLOUR = {"forwarded": "green", "dropped": "red", "rejected": "red"}


class CtState(StrEnum):
    """What conntrack is to call the packet."""

    NEW = "new"
    ESTABLISHED = "established"
    REPLY = "reply"
    RELATED = "related"


def trace(  # noqa: PLR0913, PLR0917 - one parameter an option
    flow: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE -> DESTINATION:PORT/PROTO]",
            help="Quote it, or write `to` for the arrow. Source: an endpoint's name or IP, "
            "`peer NAME/IP`, `host`.",
        ),
    ] = None,
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
    ct: Annotated[
        CtState | None, typer.Option(help="State to make true first. Default: as it is now.")
    ] = None,
    sport: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Source port, or echo identifier.")
    ] = None,
    frame: Annotated[
        str | None, typer.Option(metavar="HEX", help="An Ethernet frame instead.")
    ] = None,
    pcap: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A captured frame instead.")
    ] = None,
    packet: Annotated[int, typer.Option(min=1, help="Which record of --pcap.")] = 1,
    port: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where the frame comes in.")
    ] = None,
    hook: Annotated[
        str | None,
        typer.Option(metavar="to-netdev", help="The frame leaves by netdev, it does not come in."),
    ] = None,
    gso_size: Annotated[
        int | None, typer.Option(help="The frame is a super-packet: payload bytes of each packet.")
    ] = None,
    csum_start: Annotated[
        int | None, typer.Option(help="The L4 checksum is partial: where its sum begins.")
    ] = None,
    csum_offset: Annotated[int | None, typer.Option(help="And where it goes, from there.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ask this node file instead of the daemon."),
    ] = None,
) -> None:
    """Trace a packet through the tables of the daemon; nothing is sent or changed.

    Exit code: 0 forwarded, 10 dropped, 11 rejected (dropped, and the sender is told).
    """
    text = _flow_text(flow or [])
    if (frame is not None) + (pcap is not None) + bool(text) != 1:
        raise typer.BadParameter("give one of: a microflow, --frame, --pcap")
    if pcap is not None:
        frame = _record(pcap, packet)
    asked = {"flow": text or None, "ct": ct and str(ct), "sport": sport, "frame": frame,
             "port": port, "hook": hook, "gso_size": gso_size, "csum_start": csum_start,
             "csum_offset": csum_offset}  # fmt: skip
    answer = _offline(config, asked) if config is not None else _online(socket, asked)
    print_lines(json_object(answer) if output is Form.JSON else _tree(answer))
    raise typer.Exit(_EXIT[answer["result"]])


def _flow_text(words: list[str]) -> str:
    for word in words:
        if re.match(r"--?\w", word):
            raise typer.BadParameter(f"no such option: {word}")
    return " ".join(words)


def _record(path: Path, number: int) -> str:
    """Hex of one record of a capture file, counted from 1."""
    from fwd.observe.pcap import PcapError, read_pcap  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            for count, (_, data) in enumerate(read_pcap(file, str(path)), start=1):
                if count == number:
                    return data.hex()
    except PcapError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"opening {path}: {error.strerror}, check the path")
    raise typer.BadParameter(f"{path} has no record {number}", param_hint="--packet")


def _online(socket: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    from fwd.api.client import Client  # noqa: PLC0415

    with Client(socket) as client:
        answer: dict[str, Any] = client.post(
            "/v1/trace", {key: value for key, value in asked.items() if value is not None}
        )
    return answer


def _offline(config: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Trace on fresh tables of a node file."""
    from fwd.config.load import ConfigError  # noqa: PLC0415
    from fwd.control.replay_node import ReplayNode  # noqa: PLC0415
    from fwd.control.trace import TraceError, TraceRequest  # noqa: PLC0415
    from fwd.control.trace import trace as trace_on  # noqa: PLC0415
    from fwd.datapath.errors import DatapathError  # noqa: PLC0415

    node = None
    try:
        frame = bytes.fromhex(asked["frame"]) if asked["frame"] is not None else None
    except ValueError:
        _fail("frame: not hex, write two digits a byte")
    try:
        request = TraceRequest(**{**asked, "frame": frame})
        node = ReplayNode(config, seed=0)
        return trace_on(node.dp, node.node, node.world, request, 0)
    except (ConfigError, DatapathError, TraceError) as error:
        _fail(str(error))
    finally:
        if node is not None:
            node.close()


def _fail(text: str) -> NoReturn:
    typer.echo(f"fwd: {text}", err=True)
    raise typer.Exit(1)


# ---- the tree ----


def _tree(answer: Mapping[str, Any]) -> Iterator[str]:
    for packet in answer["setup"]:
        yield f"first, so that the connection stands: {_title(packet)}"
        yield from _branches(packet)
        yield ""
    yield _title(answer["packet"])
    yield from _branches(answer["packet"])
    yield paint(f"verdict: {answer['verdict']}", _COLOUR[answer["result"]])


def _title(packet: Mapping[str, Any]) -> str:
    state = f", ct {packet['ct']}" if packet["ct"] else ""
    return f"{packet['summary']}, in at {packet['port']}{state}"


def _branches(packet: Mapping[str, Any]) -> Iterator[str]:
    """One branch a hook, one twig a stage."""
    hooks = [
        (hook, list(rows)) for hook, rows in groupby(packet["stages"], lambda one: one["hook"])
    ]
    for count, (hook, rows) in enumerate(hooks, start=1):
        last = count == len(hooks)
        yield f"{'└─' if last else '├─'} {hook}"
        for row in rows:
            yield f"{'  ' if last else '│ '}   {row['walk']}"
