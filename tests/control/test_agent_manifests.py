"""Manifests applied to running daemons: pods that only stand there, policies that pods feel."""

from __future__ import annotations

import pytest
import uvloop

from fwd.config.load import ConfigError
from fwd.control.node_source import ManifestFile
from tests.control.daemons import NodeText, agents, exchange, free_port, ping, pod
from tests.netlink.namespaces import ip_json

pytestmark = pytest.mark.netns

POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-port-5001}
spec:
  podSelector: {matchLabels: {app: c}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: a}}}]
    ports: [{port: 5001}]
"""


def pods(one, node, *others):
    """The manifest of a pod on ``node`` and of others on its peer."""
    rows = [(one, node, f", fwd.io/netns: {one.netns}")]
    rows += [(other, "peer", "") for other in others]
    return "---\n".join(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {p.name}, labels: {{app: {p.name}}}, "
        f"annotations: {{fwd.io/ip: {p.ip}{netns}}}}}\nspec: {{nodeName: {where}}}\n"
        for p, where, netns in rows
    )


async def order(agent, text, *, delete=False):
    """Apply or delete one file."""
    return await agent.change_manifests([ManifestFile("m.yaml", text)], delete=delete)


def test_pods_and_policies_of_manifests(tmp_path):
    """Pods made by manifests reach each other; a policy denies, allows its port, and goes."""

    async def main(a, c):
        port = free_port()
        texts = NodeText(tmp_path / "1.yaml", port, 1), NodeText(tmp_path / "2.yaml", port, 2)
        async with agents(*texts) as (first, second):
            report = await order(first, pods(a, "n1", c))
            assert report["endpoints"]["added"] == ["default/a"]
            await order(second, pods(c, "n2", a))
            (sender,), (receiver,) = first.node.endpoints, second.node.endpoints
            assert sender.identity != receiver.identity
            assert await ping(a, c.ip)
            await order(second, POLICY)
            assert not await ping(a, c.ip)
            assert await exchange(a, c, 1 << 16)
            with pytest.raises(ConfigError, match=r"m\.yaml:1: Pod default/z was not applied"):
                await order(second, pods(c, "n2").replace("name: c", "name: z"), delete=True)
            await second.reload()
            assert not await ping(a, c.ip)
            await order(second, POLICY, delete=True)
            assert await ping(a, c.ip)
            report = await order(second, pods(c, "n2", a), delete=True)
            assert report["endpoints"]["removed"] == ["default/c"]
            assert [row["ifname"] for row in ip_json(c.netns, "link")] == ["lo"]

    with pod("a", 10) as a, pod("c", 20, node=2) as c:
        uvloop.run(main(a, c))


def test_refused_order_leaves_pods_alone(tmp_path):
    """A namespace that is not there refuses the whole order, with the manifest's line."""

    async def main(a):
        text = NodeText(tmp_path / "1.yaml", free_port(), 1)
        async with agents(text) as (agent,):
            bad = pods(a, "n1").replace("default/a", "b").replace(a.netns, "nowhere-at-all")
            with pytest.raises(ConfigError, match=r"m\.yaml:1: endpoint default/a: .*nowhere"):
                await order(agent, bad)
            assert agent.node.endpoints == ()
            assert agent.dp.generation == 1

    with pod("a", 10) as a:
        uvloop.run(main(a))
