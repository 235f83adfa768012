"""Node n1 with manifests, as text to be changed in one place a test."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

from fwd.config.load import parse_node_text
from fwd.control.manifests import expand
from fwd.manifest.load import merge, parse_file

if TYPE_CHECKING:
    from fwd.config.schema import NodeFile
    from fwd.model.manifest import Manifests

__all__ = ["NODE", "node", "pod", "said"]

NODE = """\
node: {name: n1, ip: 192.0.2.1, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}
peers: [{name: n2, ip: 192.0.2.2, pod_cidr: 10.0.2.0/24}]
"""


def pod(name: str, *, labels: str = "", spec: str = "", ip: str = "", more: str = "") -> str:
    """One pod's document; ``more`` are annotations beside the address's."""
    notes = ", ".join(filter(None, [f'fwd.io/ip: "{ip}"' if ip else "", more]))
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{{labels}}}, "
        f"annotations: {{{notes}}}}}\nspec: {{{spec}}}\n---\n"
    )


def said(text: str) -> Manifests:
    """What manifests say."""
    return merge(parse_file(dedent(text), "m.yaml"))


def node(text: str = "", manifests: str = "") -> NodeFile:
    """NODE with more sections, and manifests in it."""
    return expand(parse_node_text(NODE + dedent(text), Path("n1.yaml")), said(manifests))
