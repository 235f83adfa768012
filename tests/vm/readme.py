"""Commands out of the documents, as a reader would type them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.vm.image import UNDERLAY

__all__ = ["TwoHosts", "blocks", "pod_unit", "two_hosts"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class TwoHosts:
    """What README.md's section of this name has to be typed."""

    first: list[str]
    second: list[str]
    serve: str
    """On the second host; goes on until it is interrupted."""
    fetch: str
    """On the first."""


def blocks(text: str, heading: str) -> list[list[str]]:
    """Return the indented blocks under a heading, without their comments.

    Raises:
        LookupError: there is no such heading.
    """
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"no heading {heading!r}")
    listed: list[list[str]] = []
    inside = False
    for line in found[1].splitlines():
        if line.startswith("    "):
            if not inside:
                listed.append([])
            listed[-1].append(re.sub(r"\s+# .*", "", line[4:]))
            inside = True
        elif line or not inside:
            inside = False
    return listed


def two_hosts() -> TwoHosts:
    """Return the section with what it says is to be put in, and nothing else changed."""
    both, (serve, fetch) = blocks((ROOT / "README.md").read_text(), "Two hosts")
    first, second = (UNDERLAY[name][0] for name in ("node1", "node2"))
    return TwoHosts(
        [_filled(line, first, second) for line in both],
        [_filled(_twin(line), second, first) for line in both],
        serve,
        fetch,
    )


def _twin(line: str) -> str:
    """On the second host: its node file, its namespace, the addresses swapped."""
    other = {"OWN ADDRESS": "ADDRESS OF THE OTHER", "ADDRESS OF THE OTHER": "OWN ADDRESS"}
    other |= {"node1.yaml": "node2.yaml", "netns add curl": "netns add nginx"}
    return re.sub("|".join(other), lambda match: other[match[0]], line)


def _filled(line: str, own: str, other: str) -> str:
    return line.replace("OWN ADDRESS", own).replace("ADDRESS OF THE OTHER", other)


def pod_unit() -> str:
    """Return the unit that docs/operations.md gives for namespaces that outlive a reboot."""
    text = (ROOT / "docs/operations.md").read_text()
    (found,) = (one for one in blocks(text, "Two hosts in ten minutes") if "[Service]" in one)
    return "\n".join(found) + "\n"
