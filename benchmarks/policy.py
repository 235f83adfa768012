"""How long policies take to compile: 10,000 rules, 1,000 identities, from values to entries.

One line of JSON. Parsing YAML is not in it; a daemon pays for that once a file. The load: 500
policies of 20 rules, each naming another application by label and a port, all selecting the one
endpoint of the node; 1,000 pods with labels of their own.
"""

from __future__ import annotations

import json
import time
from ipaddress import IPv4Address
from pathlib import Path

from fwd.config.load import parse_node_text
from fwd.control.compile import compile_world
from fwd.control.manifests import expand
from fwd.model.manifest import Manifests, Origin, Peer, Pod, Policy, PolicyRule, PortMatch
from fwd.model.policy import PortRange
from fwd.model.selector import NAMESPACE_LABEL, Requirement, Selector, identity_labels

POLICIES, RULES, IDENTITIES = 500, 20, 1000
ROUNDS = 5
NODE = """\
node: {name: n1, ip: 192.0.2.1, pod_cidr: 10.0.0.0/16, router_ip: 10.0.0.1}
peers: [{name: n2, ip: 192.0.2.2, pod_cidr: 10.1.0.0/16}]
endpoints: [{name: default/app0, id: 1, ip: 10.0.0.9}]
"""


def application(number: int) -> Selector:
    """Select the pods of one application."""
    own = Requirement(NAMESPACE_LABEL, "In", ("default",))
    return Selector((Requirement("app", "In", (f"app{number}",)), own))


def load() -> Manifests:
    """Make the pods and policies."""
    first = int(IPv4Address("10.1.0.1"))
    pods = tuple(
        Pod(
            origin=Origin("Pod", f"default/app{number}", "pods.yaml", number + 1),
            namespace="default",
            labels=identity_labels("default", {"app": f"app{number}", "tier": str(number % 7)}),
            node_name="n2" if number else "n1",
            ips=(IPv4Address(first + number),) if number else (),
        )
        for number in range(IDENTITIES)
    )
    policies = tuple(
        Policy(
            origin=Origin("NetworkPolicy", f"default/p{number}", "policies.yaml", number + 1),
            subject=application(0),
            ingress=True,
            egress=False,
            rules=tuple(rule(number * RULES + index, index) for index in range(RULES)),
        )
        for number in range(POLICIES)
    )
    return Manifests(pods=pods, policies=policies)


def rule(number: int, index: int) -> PolicyRule:
    """Make a rule that no other equals."""
    port = 1 + number // IDENTITIES
    return PolicyRule(
        direction="ingress",
        action="allow",
        index=index,
        line=number + 1,
        peers=(Peer(selector=application(number % IDENTITIES)),),
        ports=(PortMatch("tcp", PortRange(port, port)),),
    )


def main() -> None:
    """Compile some times and print the best, as the machine's noise only adds."""
    node = parse_node_text(NODE, Path("n1.yaml"))
    manifests = load()
    best, entries = float("inf"), 0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        world = compile_world(expand(node, manifests))
        best = min(best, time.perf_counter() - start)
        entries = len(world.policy)
    print(
        json.dumps(
            {
                "benchmark": "policy-compile",
                "rules": POLICIES * RULES,
                "identities": IDENTITIES,
                "entries": entries,
                "compile_ms": round(best * 1e3, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
