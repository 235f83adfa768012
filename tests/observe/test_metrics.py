"""Prometheus text: C counters under Cilium's suffixes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fwd.datapath.binding import Packet
from fwd.model.rows import MetricRow
from fwd.observe.metrics import metric_json, metrics_text, pump_rates
from tests.api.daemon import LabAgent
from tests.api.frames import NODE, syn, udp

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def samples(tmp_path: Path) -> dict[tuple[str, ...], float]:
    """Every sample after two allowed packets and one denied."""
    path = tmp_path / "node.yaml"
    path.write_text(NODE, encoding="utf-8")
    agent = LabAgent(path)
    agent.dp.run(10**9, [Packet(frame, 2825) for frame in (syn(), syn(), udp())])
    text = asyncio.run(metrics_text(agent)).decode()
    agent.dp.close()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_balance(samples: dict[tuple[str, ...], float]):
    """Received = sent + to_stack + punted + drops, as the help text says."""
    outcome = {key[1]: value for key, value in samples.items() if "datapath_packets" in key[0]}
    drops = sum(value for key, value in samples.items() if key[0] == "fwd_drop_count_total")
    assert outcome == {"received": 3, "sent": 2, "to_stack": 0, "punted": 0}
    assert outcome["received"] == outcome["sent"] + drops


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("fwd_drop_count_total", "EGRESS", "Policy denied"), 1),
        (("fwd_drop_bytes_total", "EGRESS", "Policy denied"), 42),
        (("fwd_forward_count_total", "EGRESS"), 4),
        (("fwd_endpoint",), 1),
        (("fwd_endpoint_state", "ready"), 1),
        (("fwd_map_entries", "ct4_global"), 1),
        (("fwd_bpf_map_pressure", "ct4_global"), 1 / 8192),
        (("fwd_pump_rx_packets_total",), 12),
        (("fwd_monitor_lost_events_total",), 0),
        (("fwd_policy_max_revision",), 1),
    ],
)
def test_metrics_values(samples: dict[tuple[str, ...], float], key: tuple[str, ...], value: float):
    """Names, labels and values of the series dashboards rely on."""
    assert samples[key] == value


def test_who_is_told_counts_as_sent_and_as_answered(tmp_path: Path):
    """With rejects on, a denied packet moves from the drops to the answers and stays in the sum."""
    path = tmp_path / "node.yaml"
    path.write_text(NODE + "features: {deny: reject}\n", encoding="utf-8")
    agent = LabAgent(path)
    agent.dp.run(10**9, [Packet(udp(), 2825)])
    text = asyncio.run(metrics_text(agent)).decode()
    agent.dp.close()
    assert 'fwd_answer_count_total{direction="EGRESS",reason="Policy denied"} 1.0' in text
    assert 'fwd_datapath_packets_total{outcome="sent"} 1.0' in text
    assert "fwd_drop_count_total{" not in text


def test_metric_json_names_the_reason():
    """A row of `fwd metrics list`."""
    assert metric_json(MetricRow(133, 1, 3, 180)) == {
        "reason": "Policy denied", "code": 133, "direction": "INGRESS", "packets": 3, "bytes": 180,
    }  # fmt: skip


def test_pump_rates_are_of_the_last_moment_and_ratios_of_all_time():
    """A counter that is new since has no rate yet; nothing is divided by nought."""
    before = {"wakeups": 10, "rx_packets": 40, "tap_rx_super": 0, "tap_rx_super_bytes": 0}
    now = before | {"wakeups": 60, "rx_packets": 540, "spins": 7}
    rows = pump_rates(before, now, 0.5)
    found = {row["counter"]: (row["value"], row["per_second"]) for row in rows}
    assert found == {
        "wakeups": (60, 100.0), "rx_packets": (540, 1000.0), "spins": (7, 0.0),
        "tap_rx_super": (0, 0.0), "tap_rx_super_bytes": (0, 0.0),
        "packets_per_wakeup": (9.0, None), "tap_rx_super_size": (0.0, None),
    }  # fmt: skip
