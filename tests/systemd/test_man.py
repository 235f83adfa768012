"""The man pages keep up with the commands, keys and variables there are."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from fwd.cli.main import app
from fwd.config.pieces import ENVIRONMENT
from fwd.config.schema import NodeFile, Section
from fwd.control.reload import refuse_fixed

MAN = Path(__file__).resolve().parents[2] / "docs" / "man"
PAGES = sorted(MAN.iterdir())


def words(page: str) -> set[str]:
    """Every word of a page, without its markup."""
    text = re.sub(r"\\f[BIRP]", "", (MAN / page).read_text().replace("\\-", "-"))
    return set(re.findall(r"[\w-]+", text))


def commands() -> set[str]:
    """The top level's visible commands."""
    group = typer.main.get_command(app)
    context = group.make_context("fwd", [], resilient_parsing=True)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name for name, command in found.items() if not command.hidden}


def keys(section: type[Section]) -> set[str]:
    """Every key of a section and of those in it."""
    found = set()
    for name, info in section.model_fields.items():
        if info.alias is None:
            found.add(name)
            for inner in re.findall(r"\w+(?:Section|Row)\b", str(info.annotation)):
                kinds = [kind for kind in Section.__subclasses__() if kind.__name__ == inner]
                found |= {key for kind in kinds for key in keys(kind)}
    return found


def test_every_command_is_in_the_manual():
    """Hidden ones are for units and for those who come from Cilium."""
    assert len(commands()) > 15
    assert commands() - words("fwd.8") == set()


def test_every_key_is_in_the_manual():
    """Of the node file, at any depth."""
    assert {"lifetimes_s", "tcp_syn", "affinity_timeout_s", "state"} <= keys(NodeFile)
    assert keys(NodeFile) - words("fwd.yaml.5") == set()


def test_stars_are_at_what_a_reload_refuses():
    """And a plus at what a restart does not change either."""
    page = (MAN / "fwd.yaml.5").read_text().partition(".SH SECTIONS")[2]
    marked, section = set(), ""
    for line in page.splitlines():
        section = line.removeprefix(".SS ") if line.startswith(".SS ") else section
        if found := re.fullmatch(r"\.BR (\w+) ([*+])[,;]?", line):
            marked |= {(f"{one}.{found[1]}", found[2]) for one in section.split(", ")}
    refused = set(re.findall(r'"(\w+\.\w+)"', inspect.getsource(refuse_fixed)))
    assert len(refused) == 7
    stars = {key for key, mark in marked if mark == "*"}
    assert stars - {"api.listen", "metrics.socket"} == refused, "those two share their paragraph"
    assert {key for key, mark in marked if mark == "+"} == {"conntrack.capacity"}


def test_every_variable_is_in_the_manual():
    """And no other."""
    assert {word for word in words("fwd.yaml.5") if word.startswith("FWD_")} == set(ENVIRONMENT)


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_are_well_formed(page):
    """Groff has nothing to warn of."""
    command = ["groff", "-man", "-ww", "-z", "-Tutf8", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
