"""Contradictions of services, and what services ask for that waits, one case a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fwd.config.load import ConfigError, parse_node_text
from tests.config.test_check import NODE, POD_A, world

B = "{ip: 10.0.2.1, port: 8080}"
S = "{name: s, frontend: 10.96.0.1, port: 80, backends: [{ip: 10.0.2.1, port: 8080}]}"


def service(**fields: str) -> str:
    """One row, with fields over those of S."""
    row = {"name": "s", "frontend": "10.96.0.1", "port": "80", "backends": f"[{B}]"} | fields
    return "{" + ", ".join(f"{key}: {value}" for key, value in row.items()) + "}"


def services(*rows: str) -> str:
    """YAML of a node with these rows, one a line from line 3."""
    return world() + "services:\n" + "".join(f"  - {row}\n" for row in rows)


CASES = [
    ("a frontend twice", services(S, service(name="t")), 4,
     "services[1].frontend: 10.96.0.1:80/tcp (external) is service s's already, write one"),
    ("a frontend of nobody", services(service(frontend="0.0.0.0")), 3,
     "services[0].frontend: 0.0.0.0 is no frontend, write the service's address"),
    ("a frontend of the router", services(service(frontend="10.0.0.1")), 3,
     "services[0].frontend: 10.0.0.1 is the router, give the service its own address"),
    ("a frontend of a pod",
     world(endpoints=f"[{POD_A}]", services="[" + service(frontend="10.0.0.10") + "]"), 3,
     "services[0].frontend: 10.0.0.10 is endpoint a, give the service its own address"),
    ("two families", services(service(frontend='"fd00::1"')), 3,
     "services[0].backends[0].ip: 10.0.2.1 is not of the family of fd00::1"),
    ("a backend twice", services(service(backends=f"[{B}, {B}]")), 3,
     "services[0].backends[1].ip: 10.0.2.1:8080 stands here already, remove one"),
    ("a backend that is the frontend",
     services(service(backends="[{ip: 10.96.0.1, port: 80}]")), 3,
     "services[0].backends[0].ip: 10.96.0.1:80 is the frontend, write who answers"),
    ("sctp ports", services(service(proto="sctp")), 3,
     "services[0].backends[0].port: 8080 is not the frontend's port, SCTP ports cannot be"),
    ("affinity for ever", services(service(flags="[affinity]")), 3,
     "services[0].flags: affinity needs affinity_timeout_s"),
    ("a backend in two states",
     services(S, service(port="81", backends=f"[{B.replace('}', ', state: terminating}')}]")), 4,
     "services[1].backends[0].state: 10.0.2.1:8080/tcp is active in service s, a backend has"),
    ("two IPv6 hairpins", world(node=NODE.replace("}", ", loopback_ip: ['fd::1', 'fd::2']}")), 1,
     "node.loopback_ip: a hairpin has one source a family, write one of each"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "problem"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])  # fmt: skip
def test_contradictions_are_named(text: str, line: int, problem: str) -> None:
    """Each is an error with file, line, key and what to do."""
    with pytest.raises(ConfigError) as caught:
        parse_node_text(text, Path("w.yaml"))
    assert f"w.yaml:{line}: {problem}" in str(caught.value)


FINE = [
    service(), service(proto="sctp", backends="[{ip: 10.0.2.1, port: 80}]"),
    service(scope="internal", flags="[]", port="82"),
    service(flags="[affinity]", affinity_timeout_s="10", port="83"),
    service(port="84", backends="[]"), service(port="85"), service(proto="udp"),
]  # fmt: skip


def test_what_makes_sense_is_no_error() -> None:
    """One address on several protocols and ports, a shared backend, none at all."""
    node = parse_node_text(services(*FINE), Path("w.yaml"))
    assert len(node.services) == len(FINE)


WAITING = [
    (service(), []),
    (service(flags="[routable]"), []),
    (service(flags="[affinity]", affinity_timeout_s="5"), []),
    (service(flags="[node_port, source_range]", source_ranges="[10.0.0.0/8]"),
     ["services[0].flags: node_port, source_range has no effect without features.nodeport"]),
    (service(source_ranges="[10.0.0.0/8]"),
     ["services[0].source_ranges: has no effect without the flag source_range"]),
    (service(affinity_timeout_s="5"),
     ["services[0].affinity_timeout_s: has no effect without the flag affinity"]),
    (service(scope="internal"), ["services[0].scope: internal is never looked at"]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "expected"), WAITING)
def test_what_has_no_effect_is_warned_of(row: str, expected: list[str]) -> None:
    """Only what this version does not act on, with its line."""
    warnings = parse_node_text(services(row), Path("w.yaml")).warnings
    assert len(warnings) == len(expected)
    for warning, start in zip(warnings, expected, strict=True):
        assert warning.startswith(f"w.yaml:3: {start}")


def test_an_internal_row_beside_its_external_one_has_effect() -> None:
    """The flag two_scopes makes it found."""
    rows = services(service(flags="[two_scopes]"), service(scope="internal"))
    assert parse_node_text(rows, Path("w.yaml")).warnings == ()
