"""The daemon as a whole, on real TAPs; the topology is drawn in daemons.py."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from time import monotonic_ns

import pytest
import structlog
import uvloop

from fwd.api.views import config
from fwd.config.load import ConfigError
from fwd.control import compile as compile_module
from fwd.control.agent import Agent
from fwd.control.trace import TraceRequest, trace
from fwd.datapath.errors import DatapathError
from fwd.model.rows import Params
from fwd.netlink.errors import LinkError
from tests.control.daemons import (
    NodeText,
    agents,
    exchange,
    execute,
    free_port,
    ping,
    pod,
    silent,
    until,
)
from tests.netlink.namespaces import ip_json, open_descriptors

pytestmark = pytest.mark.netns


def devices(*pods) -> list[list[str]]:
    """Device names in each pod's namespace."""
    return [[row["ifname"] for row in ip_json(one.netns, "link")] for one in pods]


def test_two_nodes_carry_their_pods(tmp_path):
    """Ping, ping to the router and TCP with its checksums, within a node and across."""

    async def main(a, b, c):
        port = free_port()
        one = NodeText(tmp_path / "1.yaml", port, 1, [a, b], [c])
        two = NodeText(tmp_path / "2.yaml", port, 2, [c], [a, b])
        async with agents(one, two) as (first, second):
            assert await ping(a, "10.0.1.1")
            assert await ping(a, b.ip)
            assert await ping(a, c.ip)
            assert await exchange(a, b, 1 << 20)
            assert await exchange(a, c, 1 << 20)
            assert await exchange(c, b, 1 << 20)
            for agent in (first, second):
                stats = agent.pump_stats()
                assert stats["tap_write_errors"] == stats["udp_send_errors"] == 0
                assert stats["punts_lost"] == stats["punt_write_errors"] == 0
                assert set(agent.endpoint_states().values()) == {"ready"}
                assert agent.status()["tunnel"] == {
                    "protocol": "vxlan", "port": port, "mtu": 1450,
                }  # fmt: skip

    with pod("a", 10) as a, pod("b", 11) as b, pod("c", 20, node=2) as c:
        uvloop.run(main(a, b, c))


def test_traces_ask_the_live_tables(tmp_path):
    """A view has what traffic has made, and what a trace does there stays there."""

    async def main(a, c):
        port = free_port()
        one = NodeText(tmp_path / "1.yaml", port, 1, [a], [c])
        two = NodeText(tmp_path / "2.yaml", port, 2, [c], [a])
        async with agents(one, two) as (agent, _):
            assert await ping(a, c.ip)
            before = [*agent.dp.ct(tcp=False)], agent.dp.metrics()
            request = TraceRequest(f"a -> {c.ip}/icmp", ct="established")
            with agent.view() as view:
                assert [*view.ct(tcp=False)] == before[0] != []
                answer = trace(view, agent.node, agent.world, request, monotonic_ns())
            assert answer["verdict"].startswith("forwarded to peer 127.0.0.2, VNI 310")
            assert ([*agent.dp.ct(tcp=False)], agent.dp.metrics()) == before

    with pod("a", 10) as a, pod("c", 20, node=2) as c:
        uvloop.run(main(a, c))


def test_edge_of_the_mtu(tmp_path):
    """A datagram of exactly the pod's MTU crosses with DF set, one byte more does not leave."""

    async def main(a, c):
        port = free_port()
        one = NodeText(tmp_path / "1.yaml", port, 1, [a], [c])
        two = NodeText(tmp_path / "2.yaml", port, 2, [c], [a])
        async with agents(one, two):
            assert await ping(a, c.ip, "-M", "do", "-s", str(1450 - 28))
            assert not await ping(a, c.ip, "-M", "do", "-s", str(1450 - 27))
            assert await ping(a, c.ip, "-s", "4000")

    with pod("a", 10) as a, pod("c", 20, node=2) as c:
        uvloop.run(main(a, c))


def test_stop_leaves_nothing_behind(tmp_path):
    """Devices, descriptors and tasks are gone."""

    async def main(a, b):
        text = NodeText(tmp_path / "1.yaml", free_port(), 1, [a, b])
        async with agents(text):
            assert devices(a, b) == [["lo", "eth0"]] * 2
        assert devices(a, b) == [["lo"]] * 2
        before = open_descriptors()
        async with agents(text):
            assert open_descriptors() > before
        await asyncio.sleep(0.05)
        assert open_descriptors() == before
        assert len(asyncio.all_tasks()) == 1

    with pod("a", 10) as a, pod("b", 11) as b:
        uvloop.run(main(a, b))


def test_failed_start_leaves_nothing_behind(tmp_path):
    """Neither a missing namespace nor a taken API socket leaves a device."""

    @contextlib.asynccontextmanager
    async def taken(_agent):
        raise OSError("another daemon answers")
        yield

    async def main(a):
        text = NodeText(tmp_path / "1.yaml", free_port(), 1, [a])
        text.extra = "# second endpoint follows\n"
        text.write()
        path = text.path
        path.write_text(path.read_text().replace(a.row, f"{a.row}\n  - {missing}"))
        before = open_descriptors()
        with pytest.raises(ConfigError, match=r"1\.yaml:\d+: endpoint x: .*ip netns add fwdt-no"):
            await Agent(path, silent).start()
        text.write()
        with pytest.raises(OSError, match="another daemon answers"):
            await Agent(path, taken).start()
        assert devices(a) == [["lo"]]
        assert open_descriptors() == before

    missing = "{name: x, id: 77, identity: 377, ip: 10.0.1.77, netns: fwdt-none}"
    with pod("a", 10) as a:
        uvloop.run(main(a))


def test_reload_adds_and_removes_pods(tmp_path):
    """New pods talk at once, removed ones lose device and connections, others notice nothing."""

    async def main(a, b, c):
        text = NodeText(tmp_path / "1.yaml", free_port(), 1, [a, b])
        async with agents(text) as (agent,):
            assert await ping(a, b.ip)
            text.pods = [a, c]
            text.write()
            report = await agent.reload()
            assert report["revision"] == 2
            assert report["endpoints"] == {"added": ["c"], "removed": ["b"], "replaced": []}
            assert report["tables"]["lxc"] == {"added": 1, "changed": 0, "removed": 1}
            assert devices(a, b, c) == [["lo", "eth0"], ["lo"], ["lo", "eth0"]]
            assert await ping(a, c.ip)
            assert agent.endpoint_states() == {10: "ready", 12: "ready"}
            gone = IPv4Address(b.ip)
            await until(lambda: not any(gone in {r.saddr, r.daddr} for r in agent.dp.ct(tcp=False)))
            assert any(agent.dp.ct(tcp=False))
            assert (await agent.reload())["tables"] == {}

    with pod("a", 10) as a, pod("b", 11) as b, pod("c", 12) as c:
        uvloop.run(main(a, b, c))


def test_refused_reload_changes_nothing(tmp_path):
    """A bad line, a missing namespace, a fixed key: the error has its line, pods go on."""

    async def main(a, b):
        port = free_port()
        text = NodeText(tmp_path / "1.yaml", port, 1, [a, b])
        async with agents(text) as (agent,):
            whole = text.path.read_text()
            for old, new, error in (
                ("conntrack:", "contrack:", r"1\.yaml:3: contrack: unknown key"),
                (b.row, b.row + missing, r"1\.yaml:\d+: endpoint x: .* is missing"),
                (f"port: {port}", f"port: {port - 1}", r"1\.yaml:2: tunnel\.port: .*restart it"),
            ):
                text.path.write_text(whole.replace(old, new))
                with pytest.raises(ConfigError, match=error):
                    await agent.reload()
                assert agent.dp.generation == 1
                assert await ping(a, b.ip)

    missing = "\n  - {name: x, id: 77, identity: 377, ip: 10.0.1.77, netns: fwdt-none}"
    with pod("a", 10) as a, pod("b", 11) as b:
        uvloop.run(main(a, b))


def test_reload_without_rights_is_refused_at_the_endpoint(tmp_path, monkeypatch):
    """The door is down when a pod comes: its line, what to do, and nothing has changed."""

    def closed():
        raise LinkError("no CAP_SYS_ADMIN: run as root, or as the systemd units do")

    async def main(a, b):
        text = NodeText(tmp_path / "1.yaml", free_port(), 1, [a])
        async with agents(text) as (agent,):
            text.pods.append(b)
            text.write()
            with monkeypatch.context() as patch:
                patch.setattr("fwd.control.preflight.check_rights", closed)
                with pytest.raises(ConfigError, match=r"1\.yaml:8: endpoint b: no CAP_SYS_ADMIN"):
                    await agent.reload()
                assert (agent.dp.generation, devices(a, b)) == (1, [["lo", "eth0"], ["lo"]])
                text.pods = [a]
                text.write()
                await agent.reload()  # asks for no device, and so for no rights
            text.pods.append(b)
            text.write()
            await agent.reload()
            assert await ping(a, b.ip)

    with pod("a", 10) as a, pod("b", 11) as b:
        uvloop.run(main(a, b))


def test_reload_that_the_tables_cannot_hold_changes_nothing(tmp_path, monkeypatch):
    """Table and numbers are named; the pod that came with it has no device, the others go on."""
    monkeypatch.setattr(compile_module, "Params", partial(Params, policy=64))
    monkeypatch.setattr(compile_module, "SPARE", 1)
    fields = "endpoint: a, direction: egress, proto: tcp, action: deny"

    async def main(a, b, c):
        text = NodeText(tmp_path / "1.yaml", free_port(), 1, [a, b])
        async with agents(text) as (agent,):
            before = set(agent.dp.policies())
            text.pods = [a, b, c]
            rows = "".join(f"  - {{{fields}, port: {port}}}\n" for port in range(1, 202, 2))
            text.extra = f"policy:\n{rows}"
            text.write()
            with pytest.raises(DatapathError, match=r"policy table holds 64 rows and \d+ are"):
                await agent.reload()
            assert agent.dp.generation == 1
            assert {replace(row, packets=0, bytes=0) for row in agent.dp.policies()} == before
            assert devices(a, b, c) == [["lo", "eth0"], ["lo", "eth0"], ["lo"]]
            assert await ping(a, b.ip)

    with pod("a", 10) as a, pod("b", 11) as b, pod("c", 12) as c:
        uvloop.run(main(a, b, c))


def test_conntrack_capacity_stays_whatever_a_reload_says(tmp_path):
    """Each note tells the tables' own size, and there is none once the file has that again."""

    async def main():
        text = NodeText(tmp_path / "1.yaml", free_port())
        async with agents(text) as (agent,):
            for wanted in (8192, 16384, 4096):
                text.path.write_text(text.path.read_text().replace("any: 4096", f"any: {wanted}"))
                notes = (await agent.reload())["notes"]
                text.write()
                stays = f"stays 4096 until the service is stopped and started, not {wanted}"
                assert notes == [f"conntrack.capacity.any: {stays}"] * (wanted != 4096)
                sizes = config(agent)["settings"]
                assert sizes["conntrack.capacity.any"] == agent.dp.stats("ct_any").cap == 4096

    uvloop.run(main())


def test_lost_pod_does_not_disturb_others_and_can_return(tmp_path):
    """Its namespace deleted: state gone, counted; made again and reloaded: ready."""

    async def main(a, b):
        text = NodeText(tmp_path / "1.yaml", free_port(), 1, [a, b])
        async with agents(text) as (agent,):
            with structlog.testing.capture_logs() as logs:
                await ip_netns("del", b.netns)
                await until(lambda: agent.endpoint_states()[11] == "gone")
            assert [(log["endpoint"], log["log_level"]) for log in logs] == [("b", "warning")]
            assert agent.pump_stats()["devices_lost"] == 1
            assert await ping(a, "10.0.1.1")
            assert (await agent.reload())["endpoints"]["added"] == []
            await ip_netns("add", b.netns)
            assert (await agent.reload())["endpoints"]["replaced"] == ["b"]
            assert agent.endpoint_states() == {10: "ready", 11: "ready"}
            assert await ping(a, b.ip)

    with pod("a", 10) as a, pod("b", 11) as b:
        uvloop.run(main(a, b))


async def ip_netns(verb: str, name: str) -> None:
    """Add or delete a namespace while the daemon goes on."""
    process = await asyncio.create_subprocess_exec("ip", "netns", verb, name)
    assert await process.wait() == 0


def test_denied_packet_is_told_with_its_rule(tmp_path):
    """The monitor's drop record names the rules that select the endpoint."""

    async def main(a, b):
        text = NodeText(tmp_path / "1.yaml", free_port(), 1, [a, b])
        text.extra = "policy:\n  - {endpoint: b, direction: ingress, identity: any, "
        text.extra += "proto: tcp, port: 80, action: deny}\n"
        async with agents(text) as (agent,):
            async with agent.monitor.subscribe({"drop"}) as records:
                await execute(a.netns, "curl", "-s", "-m", "0.3", f"http://{b.ip}/")
                [record, *_] = await records.take(5)
            assert record["drop"]["name"] == "POLICY_DENY"
            assert (record["rule"]["endpoint"], record["rule"]["port"]) == ("b", "80")

    with pod("a", 10) as a, pod("b", 11) as b:
        uvloop.run(main(a, b))


def test_boot_id_of_the_arena_is_the_kernels(tmp_path):
    """An arena of another boot has another clock; the seed is not the file's."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    async def main():
        async with agents(NodeText(tmp_path / "1.yaml", free_port())) as (agent,):
            assert agent.dp.params.boot_id.hex() == boot_id.replace("-", "")
            assert agent.dp.params.hash_seed != 0

    uvloop.run(main())


def test_a_node_on_loopback_says_that_nobody_outside_reaches_its_services(tmp_path):
    """It has no device of the host's; a reload notes what it cannot serve anyway."""

    async def main():
        rows = (
            "services:\n  - {name: own, frontend: 127.0.0.1, port: 30080, "
            "flags: [node_port, routable], backends: [{ip: 127.0.0.1, port: 80}]}\n"
        )
        extra = "features: {nodeport: true}\n"
        text = NodeText(tmp_path / "1.yaml", free_port(), extra=extra)
        with structlog.testing.capture_logs() as logs:
            async with agents(text) as (agent,):
                assert agent.status()["outside"] is None
                text.extra = extra + rows
                text.write()
                (note,) = (await agent.reload())["notes"]
                assert "features.nodeport: own: the node's own answers" in note
                assert (await agent.reload())["notes"] == []
        warnings = [log["event"] for log in logs if log["log_level"] == "warning"]
        assert [text for text in warnings if "node.ip is on a loopback device" in text]

    uvloop.run(main())
