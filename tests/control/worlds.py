"""Node files of the control tests, as text to be changed in one place a test."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING

from fwd.config.load import parse_node_text

if TYPE_CHECKING:
    from fwd.config.schema import NodeFile

__all__ = ["BASE", "node_file"]

BASE = dedent("""\
    node:
      name: n1
      ip: 192.0.2.1
      mac: "02:00:00:00:00:01"
      pod_cidr: [10.0.0.0/24, "fd00::/64"]
      router_ip: [10.0.0.1, "fd00::1"]
    peers:
      - {name: n2, ip: 192.0.2.2, pod_cidr: 10.0.2.0/24}
      - {name: old, ip: 192.0.2.3, pod_cidr: 10.0.3.0/24, vni: 42, identity: 300}
    conntrack: {capacity: {tcp: 256, any: 256}}
    endpoints:
      - {name: a, id: 10, identity: 100, ip: [10.0.0.10, "fd00::10"], ifindex: 7}
    """)


def node_file(*, replace: tuple[str, str] = ("", ""), **sections: str) -> NodeFile:
    """Return BASE as a node file, with ``replace`` done once and YAML sections added."""
    old, new = replace
    assert old in BASE
    text = BASE.replace(old, new, 1) if old else BASE
    for name, body in sections.items():
        text += f"{name}:\n{indent(dedent(body), '  ')}\n"
    return parse_node_text(text, Path("world.yaml"))
