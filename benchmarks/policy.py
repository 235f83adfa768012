"""What policies cost: compiling 10,000 rules for 1,000 identities, then one verdict among them.

    python benchmarks/policy.py [--rounds 7]

JSON lines. Compiling goes from values to entries; reading the same policies from YAML, which a
daemon does once a file, has a line of its own. The load: 500 policies of 20 rules, each naming
another application by label and a port, all selecting the one endpoint of the node; 1,000 pods with
labels of their own. The entries then go to benchmarks/policy.c, which times the C library's verdict
on keys picked at random from them. There is no pass or fail on time: the goals are printed beside
the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from fwd.config.load import parse_node_text
from fwd.control.compile import compile_world
from fwd.control.manifests import expand
from fwd.manifest.load import parse_file
from fwd.model.manifest import Manifests, Origin, Peer, Pod, Policy, PolicyRule, PortMatch
from fwd.model.policy import PortRange
from fwd.model.selector import NAMESPACE_LABEL, Requirement, Selector, identity_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwd.model.rows import PolicyRow

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O3", "-fno-plt", "-fvisibility=hidden", "-flto=auto")
POLICIES, RULES, IDENTITIES = 500, 20, 1000
COMPILE_ROUNDS = 5
GOAL_COMPILE_MS = 500.0
GOAL_VERDICT_NS = 60.0
"""Of one verdict in a batch."""
NODE = """\
node: {name: n1, ip: 192.0.2.1, pod_cidr: 10.0.0.0/16, router_ip: 10.0.0.1}
peers: [{name: n2, ip: 192.0.2.2, pod_cidr: 10.1.0.0/16}]
endpoints: [{name: default/app0, id: 1, ip: 10.0.0.9}]
"""
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: default}}
spec:
  podSelector: {{matchLabels: {{app: app0}}}}
  policyTypes: [Ingress]
  ingress:
{rules}"""
RULE = """\
  - from:
    - podSelector:
        matchLabels:
          app: app{app}
    ports:
    - protocol: TCP
      port: {port}
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


def read_all() -> None:
    """Read the policies as a manifest file, once, and print what it takes."""
    texts = (
        POLICY.format(
            name=f"p{number}",
            rules="".join(
                RULE.format(app=count % IDENTITIES, port=1 + count // IDENTITIES)
                for count in range(number * RULES, (number + 1) * RULES)
            ),
        )
        for number in range(POLICIES)
    )
    text = "---\n".join(texts)
    start = time.perf_counter()
    objects = parse_file(text, "policies.yaml")
    figures = {
        "benchmark": "policy-read",
        "objects": len(objects),
        "rules": POLICIES * RULES,
        "bytes": len(text),
        "read_ms": round((time.perf_counter() - start) * 1e3, 1),
    }
    print(json.dumps(figures), flush=True)


def compile_all() -> tuple[PolicyRow, ...]:
    """Compile some times and print the best, as the machine's noise only adds."""
    node = parse_node_text(NODE, Path("n1.yaml"))
    manifests = load()
    best, rows = float("inf"), ()
    for _ in range(COMPILE_ROUNDS):
        start = time.perf_counter()
        rows = compile_world(expand(node, manifests)).policy
        best = min(best, time.perf_counter() - start)
    figures = {
        "benchmark": "policy-compile",
        "rules": POLICIES * RULES,
        "identities": IDENTITIES,
        "entries": len(rows),
        "compile_ms": round(best * 1e3, 1),
        "goal_ms": GOAL_COMPILE_MS,
    }
    print(json.dumps(figures), flush=True)
    return rows


def verdicts(rows: Sequence[PolicyRow], rounds: int) -> int:
    """Build policy.c as the release is built and print what it measures on ``rows``.

    Returns:
        Exit code of the program, which also checks every verdict.
    """
    fields = ("lxc_id", "dir", "identity", "proto", "port", "prefix_len", "deny")
    lines = [" ".join(str(int(getattr(row, name))) for name in fields) for row in rows]
    with tempfile.TemporaryDirectory(prefix="fwd-policy-") as directory:
        program = Path(directory) / "policy"
        sources = [str(ROOT / "csrc/unity.c"), str(ROOT / "benchmarks/policy.c")]
        compiler = os.environ.get("CC", "cc")
        command = [compiler, *FLAGS, f"-I{ROOT / 'csrc'}", "-o", str(program), *sources]
        subprocess.run(command, check=True)
        done = subprocess.run(
            [str(program), str(rounds)],
            input="\n".join(lines),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    for line in done.stdout.splitlines():
        row = {"benchmark": "policy-verdict", "entries": len(rows), **json.loads(line)}
        print(json.dumps(row | {"goal": GOAL_VERDICT_NS} if row["what"] == "batched" else row))
    return done.returncode


def main() -> int:
    """Compile, build, run, print. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    read_all()
    return verdicts(compile_all(), args.rounds)


if __name__ == "__main__":
    sys.exit(main())
