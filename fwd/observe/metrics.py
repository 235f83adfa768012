"""Metrics: the datapath's counters, read at scrape, under Cilium's suffixes with prefix fwd_.

Nothing here counts: C does, and the rows are read when somebody asks. Labels hold no addresses
and no pod names.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import TYPE_CHECKING, Any, Protocol

from fwd.model.version import version
from fwd.observe.words import DIRECTION_TEXT, reason_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from fwd.datapath.binding import Datapath
    from fwd.model.rows import MetricRow
    from fwd.observe.monitor import MonitorHub

__all__ = [
    "TABLES",
    "Collector",
    "MetricSource",
    "metric_json",
    "metrics_text",
    "pump_rates",
]

TABLES: dict[str, str] = {
    "ct_tcp": "ct4_global",
    "ct_any": "ct_any4_global",
    "ipcache": "ipcache",
    "endpoint": "endpoint",
    "lxc": "lxc",
    "policy": "policy",
    "peer": "peer",
    "frag": "ipv4_frag_datagrams",
    "service": "lb4_services_v2",
    "backend": "lb4_backends_v3",
    "affinity": "lb4_affinity",
    "nat": "snat_v4_external",
    "source_range": "lb4_source_range",
    "maglev": "lb4_maglev",
}
"""Table of ``Datapath.stats`` to its ``map_name`` label: Cilium's names where it has the map."""

_LIBRARY = "prometheus_client"
_DROPS_FROM = 130
_ANSWERS = {104: 196, 105: 136, 106: 158, 107: 133}
"""Metric of packets whose sender was told, to the drop reason whose text it goes by."""
_OUTCOMES = {101: "received", 103: "sent", 102: "to_stack", 100: "punted"}
_PUMP_HELP = {
    "wakeups": "Calls of the pump that found work",
    "rx_packets": "Frames read from TAPs and the tunnel socket",
    "tx_packets": "Frames written to TAPs and the tunnel socket",
    "rx_syscalls": "System calls that read",
    "tx_syscalls": "System calls that wrote",
    "udp_rx_overflow": "Datagrams the tunnel socket lost: its buffer was full, or udp_gro went off",
    "rx_errors": "Reads that failed, other than for want of packets",
    "tap_write_errors": "Frames a TAP refused",
    "udp_send_errors": "Datagrams the kernel refused to send",
    "spins": "Busy waits for more before a sleep",
    "spin_hits": "Busy waits that found more",
    "punts": "Frames handed to the slow path",
    "punts_lost": "Frames for the slow path that found its ring full",
}

_PUMP_RATIOS = {
    "packets_per_wakeup": ("rx_packets", "wakeups"),
    "tap_rx_super_size": ("tap_rx_super_bytes", "tap_rx_super"),
    "tap_tx_super_size": ("tap_tx_super_bytes", "tap_tx_super"),
    "udp_tx_train_count": ("udp_tx_train_datagrams", "udp_tx_trains"),
}
"""Bytes of a super-packet and the like, over the daemon's life: which counter by which."""


class MetricSource(Protocol):
    """What a scrape asks of the daemon (fwd/control/agent.py)."""

    @property
    def dp(self) -> Datapath:
        """The datapath whose counters are read."""

    @property
    def monitor(self) -> MonitorHub:
        """The monitor, for what it has lost."""

    def pump_stats(self) -> dict[str, int]:
        """Counters of the I/O room, by name; empty without a pump."""

    def endpoint_states(self) -> dict[int, str]:
        """State of every local endpoint by lxc_id."""


def metric_json(row: MetricRow) -> dict[str, Any]:
    """One (reason, direction) counter as `fwd metrics list` and the API show it."""
    return {
        "reason": reason_text(row.reason),
        "code": row.reason,
        "direction": DIRECTION_TEXT.get(row.dir, "unknown").upper(),
        "packets": row.packets,
        "bytes": row.bytes,
    }


def pump_rates(
    before: dict[str, int], now: dict[str, int], seconds: float
) -> Iterator[dict[str, Any]]:
    """Turn two looks at the pump's counters into the rows of `fwd metrics list --pump`.

    Args:
        before: values by name (``MetricSource.pump_stats``).
        now: the same, later.
        seconds: in between.

    Yields:
        ``counter``, ``value`` since start, ``per_second``, None where the value is a ratio.
    """
    for name, value in sorted(now.items()):
        rate = (value - before.get(name, value)) / seconds
        yield {"counter": name, "value": value, "per_second": round(rate, 1)}
    for name, (what, by) in _PUMP_RATIOS.items():
        if what in now and by in now:
            ratio = now[what] / now[by] if now[by] else 0.0
            yield {"counter": name, "value": round(ratio, 1), "per_second": None}


async def metrics_text(source: MetricSource) -> bytes:
    """Scrape: the counters in Prometheus' text format, with the loop's turn after each family."""
    if _LIBRARY not in sys.modules:
        await asyncio.to_thread(importlib.import_module, _LIBRARY)  # 15 to 30 ms
    from prometheus_client import generate_latest  # noqa: PLC0415

    parts = []
    for family in Collector(source).collect():
        parts.append(generate_latest(_Family(family)))
        await asyncio.sleep(0)
    return b"".join(parts)


class _Family:
    """One family, as something to collect from."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> list[Metric]:
        """Give it."""
        return [self._family]


class Collector:
    """Reads one daemon's counters, family by family."""

    def __init__(self, source: MetricSource) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Read every counter now."""
        rows = self._source.dp.metrics()
        yield from _packets(rows)
        yield from self._endpoints()
        yield from self._tables()
        yield from self._pump()
        yield from self._daemon()

    def _endpoints(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

        states = self._source.endpoint_states()
        yield GaugeMetricFamily("fwd_endpoint", "Local endpoints", value=len(states))
        by_state = GaugeMetricFamily(
            "fwd_endpoint_state", "Local endpoints by state", labels=["state"]
        )
        for state in sorted(set(states.values())):
            by_state.add_metric([state], sum(one == state for one in states.values()))
        yield by_state

    def _tables(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

        label = ["map_name"]
        pressure = GaugeMetricFamily(
            "fwd_bpf_map_pressure", "Fill of a table, 0 to 1", labels=label
        )
        entries = GaugeMetricFamily("fwd_map_entries", "Entries in a table", labels=label)
        size = GaugeMetricFamily("fwd_map_bytes", "Storage of a table in bytes", labels=label)
        evicted = CounterMetricFamily(
            "fwd_map_evictions", "Entries evicted to make room for new ones", labels=label
        )
        failed = CounterMetricFamily(
            "fwd_map_insert_failures", "Entries a full table refused", labels=label
        )
        for table, name in TABLES.items():
            stats = self._source.dp.stats(table)
            pressure.add_metric([name], stats.count / stats.cap if stats.cap else 0.0)
            entries.add_metric([name], stats.count)
            size.add_metric([name], stats.size)
            evicted.add_metric([name], stats.evictions)
            failed.add_metric([name], stats.failures)
        yield from (pressure, entries, size, evicted, failed)

    def _pump(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415

        for name, value in sorted(self._source.pump_stats().items()):
            text = _PUMP_HELP.get(name, f"Pump counter {name}")
            yield CounterMetricFamily(f"fwd_pump_{name}", text, value=value)

    def _daemon(self) -> Iterator[Metric]:
        from prometheus_client.core import (  # noqa: PLC0415
            CounterMetricFamily,
            GaugeMetricFamily,
            InfoMetricFamily,
        )

        yield CounterMetricFamily(
            "fwd_monitor_lost_events",
            "Events overwritten before the monitor read them",
            value=self._source.monitor.lost,
        )
        yield GaugeMetricFamily(
            "fwd_policy_max_revision",
            "Revision of the configuration in the tables",
            value=self._source.dp.generation,
        )
        yield InfoMetricFamily("fwd_build", "The running version", value={"version": version()})


def _packets(rows: list[MetricRow]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415

    drops = ["reason", "direction"]
    dropped = CounterMetricFamily("fwd_drop_count", "Packets dropped", labels=drops)
    dropped_bytes = CounterMetricFamily("fwd_drop_bytes", "Bytes dropped", labels=drops)
    forwarded = CounterMetricFamily("fwd_forward_count", "Packets forwarded", labels=["direction"])
    forwarded_bytes = CounterMetricFamily(
        "fwd_forward_bytes", "Bytes forwarded", labels=["direction"]
    )
    answers = CounterMetricFamily(
        "fwd_answer_count", "Packets their sender was told of instead of a drop", labels=drops
    )
    outcomes = CounterMetricFamily(
        "fwd_datapath_packets", "Packets received = sent + to_stack + punted + drops",
        labels=["outcome"],
    )  # fmt: skip
    sums = dict.fromkeys(_OUTCOMES, 0)
    for row in rows:
        direction = DIRECTION_TEXT.get(row.dir, "unknown").upper()
        if row.reason >= _DROPS_FROM and row.packets:
            dropped.add_metric([reason_text(row.reason), direction], row.packets)
            dropped_bytes.add_metric([reason_text(row.reason), direction], row.bytes)
        elif row.reason == 0:
            forwarded.add_metric([direction], row.packets)
            forwarded_bytes.add_metric([direction], row.bytes)
        elif row.reason in _ANSWERS and row.packets:
            answers.add_metric([reason_text(_ANSWERS[row.reason]), direction], row.packets)
        elif row.reason in sums:
            sums[row.reason] += row.packets
    for reason, outcome in _OUTCOMES.items():
        outcomes.add_metric([outcome], sums[reason])
    yield from (dropped, dropped_bytes, answers, forwarded, forwarded_bytes, outcomes)
