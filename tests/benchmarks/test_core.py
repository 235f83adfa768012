"""benchmarks/core.py: programs build against today's headers, their packets take the path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.core import _rows, build, goal_of, policy, policy_line
from benchmarks.report import core_table

ROOT = Path(__file__).resolve().parents[2]
STRICT = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion"]
STRICT += ["-Wstrict-prototypes", "-Wvla", "-Werror", f"-I{ROOT / 'csrc'}"]


def test_core_benchmark_runs_small(tmp_path: Path) -> None:
    """A thousand flows and prefixes, one round: every figure is there and says how it was taken."""
    out = tmp_path / "core.jsonl"
    command = [sys.executable, "-m", "benchmarks.core", "--flows", "1000", "--prefixes", "1000"]
    subprocess.run(
        [*command, "--rounds", "1", "--out", out], check=True, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["metric"] for row in rows} == {
        "new", "new-rate", "table", "resident", "established", "ct-lookup-single",
        "ct-lookup-batched", "ipcache-load", "ipcache-memory", "ipcache-lookup",
    }  # fmt: skip
    for row in rows:
        assert row["commit"]
        assert row["command"].startswith("python -m benchmarks.core --flows 1000")
        assert 0 < row["min"] <= row["median"] <= row["max"]


@pytest.mark.parametrize("source", sorted((ROOT / "benchmarks").glob("*.c")), ids=lambda p: p.name)
def test_programs_compile_without_a_warning(source: Path) -> None:
    """The benchmarks' C is held to the library's standard."""
    done = subprocess.run(
        ["gcc", *STRICT, "-c", source, "-o", "/dev/null"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_udp_counts_what_it_sends(tmp_path: Path) -> None:
    """Over loopback the receiver counts the payload of every datagram that the sender sent."""
    udp = str(build(tmp_path, "udp", library=False))
    with subprocess.Popen([udp, "recv", "29123", "10"], stdout=subprocess.PIPE) as receiver:
        assert receiver.stdout is not None
        command = [udp, "fill", "127.0.0.1", "1", "100"]
        subprocess.run(command, check=True, capture_output=True)
        sent = json.loads(
            subprocess.check_output([udp, "send", "127.0.0.1", "29123", "100", "0.05"])
        )
        got = json.loads(receiver.stdout.read())
    assert sent["packets"] > 0
    assert sent["bytes"] == 100 * sent["packets"]
    assert got["bytes"] == 100 * got["packets"]
    assert 0 < got["packets"] <= sent["packets"]


def test_new_flows_a_second_follow_from_their_cost() -> None:
    """500 ns a first packet are two million a second, and the slowest round is the least."""
    text = '{"what": "new", "flows": 1000000, "n": 3, "min": 400, "median": 500, "max": 1000, '
    cost, rate = _rows(text + '"unit": "ns/packet"}')
    assert (cost["metric"], cost["median"]) == ("new", 500)
    assert (rate["metric"], rate["min"], rate["median"], rate["max"]) == ("new-rate", 1, 2, 2.5)
    assert rate["goal"] == {"side": ">=", "must": 2, "aim": 8}
    assert "goal" not in cost


def test_goals_hold_for_their_size_only() -> None:
    """A thousand flows in the cache prove nothing about a million."""
    assert goal_of("established", 1_000_000) == {"side": "<=", "must": 150, "aim": 60}
    assert goal_of("established", 1_000) is None


def test_policy_lines_have_a_title_and_a_figure() -> None:
    """A single figure, a spread, and what is neither."""
    compiled = {"benchmark": "policy-compile", "rules": 10, "entries": 7, "goal_ms": 500.0}
    line = policy_line({**compiled, "compile_ms": 3.5})
    assert (line["median"], line["unit"], line["n"]) == (3.5, "ms", 1)
    spread = {"n": 3, "min": 1, "median": 2, "max": 3, "unit": "ns"}
    line = policy_line(
        {"benchmark": "policy-verdict", "what": "batched", "keys": "hit", "entries": 7, **spread}
    )
    assert line["title"] == "policy verdict, batched, hit, 7 entries"
    assert line["median"] == 2
    assert policy_line(compiled)["remark"] == "failed"


def test_policy_benchmark_is_understood() -> None:
    """Every line the program prints today becomes a figure of the page."""
    lines = policy(lambda _: None)
    assert {line["metric"] for line in lines} >= {"policy-compile", "policy-verdict"}
    assert all(0 < line["min"] <= line["median"] <= line["max"] for line in lines)
    assert core_table(lines).count("\n") == len(lines) + 2
