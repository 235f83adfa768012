"""Microflows as text: what may be written, and what the errors say."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from fwd.config.load import load_node_file
from fwd.control.compile import compile_world
from fwd.control.microflow import FlowError, parse_microflow
from fwd.datapath.packet import PORT_HOST, PORT_OVERLAY


@pytest.fixture(scope="module")
def parse():
    """A parser for trace_world.yaml."""
    node = load_node_file(Path(__file__).parent / "trace_world.yaml")
    world = compile_world(node)
    return lambda text: parse_microflow(text, node, world)


@pytest.mark.parametrize(
    ("text", "port", "src", "dst", "proto", "dport"),
    [
        ("default/curl -> 8.8.8.8:53/udp", 2825, "10.244.0.108", "8.8.8.8", "udp", 53),
        ("default/curl->8.8.8.8:53", 2825, "10.244.0.108", "8.8.8.8", "tcp", 53),
        (" default/curl to 8.8.8.8 ", 2825, "10.244.0.108", "8.8.8.8", "icmp", 0),
        ("10.244.0.109 → 8.8.8.8/icmp", 2827, "10.244.0.109", "8.8.8.8", "icmp", 0),
        ("default/curl -> [fd00:2::171]:80/sctp", 2825, "fd00::108", "fd00:2::171", "sctp", 80),
        ("default/curl -> fd00:2::171/icmpv6", 2825, "fd00::108", "fd00:2::171", "icmp", 0),
        ("default/curl -> default/local:80/tcp", 2825, "10.244.0.108", "10.244.0.109", "tcp", 80),
        ("peer node2/10.244.2.171 -> default/curl:80", PORT_OVERLAY, "10.244.2.171",
         "10.244.0.108", "tcp", 80),
        ("peer 192.168.56.106/10.244.2.171 to 10.244.0.108", PORT_OVERLAY, "10.244.2.171",
         "10.244.0.108", "icmp", 0),
        ("peer node2/fd00:2::171 -> default/local:80", PORT_OVERLAY, "fd00:2::171",
         "fd00::109", "tcp", 80),
        ("host -> default/curl:80", PORT_HOST, "10.244.0.150", "10.244.0.108", "tcp", 80),
        ("192.168.56.105 -> default/curl:80", PORT_HOST, "192.168.56.105", "10.244.0.108",
         "tcp", 80),
    ],
)  # fmt: skip
def test_what_may_be_written(parse, text, port, src, dst, proto, dport):
    """Names, addresses, peers and the host; the protocol may be left out."""
    flow = parse(text)
    assert (flow.place.port, flow.src, flow.dst) == (port, ip_address(src), ip_address(dst))
    assert (flow.proto, flow.dport) == (proto, dport)
    assert (flow.place.peer is not None) == (port == PORT_OVERLAY)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a microflow"),
        ("default/curl", "is not a microflow"),
        ("default/curl -", "the shell takes an unquoted >"),
        ("a -> b -> c", "is not a microflow"),
        ("default/crul -> 8.8.8.8:53", "did you mean 'default/curl'"),
        ("10.244.2.171 -> 10.244.0.108:80", "write `peer NAME/10.244.2.171`"),
        ("peer node3/10.244.2.171 -> 10.244.0.108:80", "did you mean 'node2'"),
        ("peer 10.244.2.171 -> 10.244.0.108:80", "write the peer and the address behind it"),
        ("default/curl -> 8.8.8.8:0/udp", "'0' is not a port, write 1 to 65535"),
        ("default/curl -> 8.8.8.8:99999", "'99999' is not a port"),
        ("default/curl -> 8.8.8.8:http", "'http' is not a port"),
        ("default/curl -> 8.8.8.8/tcp", "tcp needs a port, write 8.8.8.8:80/tcp"),
        ("default/curl -> 8.8.8.8:8/icmp", "icmp has no ports"),
        ("default/curl -> 8.8.8.8/gre", "'gre' is no protocol, write one of tcp, udp, sctp, icmp"),
        ("default/curl -> nowhere:80", "destination: no endpoint is named 'nowhere'"),
        ("peer node2/10.244.2.171 -> fd00::108", "has no IPv6 address"),
    ],
)
def test_errors_say_what_to_write(parse, text, says):
    """What is wrong, and what to write instead."""
    with pytest.raises(FlowError) as caught:
        parse(text)
    assert says in str(caught.value)
