"""Policies of manifests to rules: one for each endpoint here, identity and port they speak of.

Pure. Whom a policy means is settled here, by labels; what its rules come to in the policy map is
fwd/control/policy.py's business, the same as for rules of the node file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from fwd.control.cidrs import is_local
from fwd.model.identity import (
    HOST,
    INIT,
    KUBE_APISERVER,
    REMOTE_NODE,
    WELL_KNOWN,
    WIRE_MAX,
    WORLD,
    WORLD_IPV4,
    WORLD_IPV6,
)
from fwd.model.policy import Rule
from fwd.model.selector import LabelIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fwd.config.schema import NodeFile
    from fwd.control.cidrs import CidrIdentities
    from fwd.control.identities import Roster
    from fwd.model.manifest import Entity, Peer, Policy, PolicyRule
    from fwd.model.policy import Direction, Proto

__all__ = ["RuleMaker", "selecting"]

_DIRECTIONS: Final[tuple[Direction, ...]] = ("ingress", "egress")
_CLUSTER: Final = frozenset({HOST, 3, 4, INIT, REMOTE_NODE, KUBE_APISERVER, 8})
"""Reserved identities that are no part of the world (reference 5.1)."""
_NODES = 2  # high byte of identities that mean one remote node each
_Who = tuple[int | Literal["any"], ...]
_Selected: TypeAlias = "tuple[Policy, list[str]]"


def selecting(policies: Iterable[Policy], roster: Roster, names: Iterable[str]) -> list[_Selected]:
    """Return the policies that select any of the endpoints ``names``, and which."""
    index = LabelIndex(
        (name, roster.members[name].labels) for name in names if roster.members[name].labels
    )
    found = ((policy, sorted(index.select(policy.subject))) for policy in policies)
    return [(policy, chosen) for policy, chosen in found if chosen]


class RuleMaker:
    """Makes rules of policies for one node.

    Args:
        node: for identities it writes itself.
        roster: who is known.
        cidrs: the prefixes' identities.
    """

    def __init__(self, node: NodeFile, roster: Roster, cidrs: CidrIdentities) -> None:
        self._roster = roster
        self._cidrs = cidrs
        self._answers: dict[tuple[Peer, ...], _Who] = {}
        numbers = {row.identity for row in node.ipcache}
        numbers |= {one.identity for one in roster.members.values()}
        numbers |= {peer.identity for peer in node.peers if peer.identity}
        world = {one for one in numbers if is_local(one) or one in (WORLD_IPV4, WORLD_IPV6)}
        nodes = {one for one in numbers if one == KUBE_APISERVER or one >> 24 == _NODES}
        pods = {one for one in numbers if WELL_KNOWN <= one <= WIRE_MAX}
        self._entities: dict[Entity, frozenset[int]] = {
            "world": frozenset({WORLD, *world, *cidrs.names}),
            "host": frozenset({HOST}),
            "remote-node": frozenset({REMOTE_NODE, *nodes}),
            "cluster": _CLUSTER | nodes | pods,
        }

    def rules(self, policy: Policy, endpoints: Iterable[str]) -> Iterator[Rule]:
        """Give the rules of one policy for the endpoints it selects."""
        for endpoint in endpoints:
            for direction in _DIRECTIONS:
                if policy.ingress if direction == "ingress" else policy.egress:
                    yield _selects(policy, endpoint, direction)
            for rule in policy.rules:
                yield from self._rule(policy, rule, endpoint)

    def _rule(self, policy: Policy, rule: PolicyRule, endpoint: str) -> Iterator[Rule]:
        origin = policy.origin
        every: tuple[tuple[Proto, str], ...] = (("any", "any"),)
        ports = dict.fromkeys(_ports(rule)) or every
        for identity in self._who(rule.peers):
            for proto, port in ports:
                yield Rule(
                    kind="rule",
                    index=rule.index,
                    file=origin.file,
                    line=rule.line,
                    endpoint=endpoint,
                    direction=rule.direction,
                    action=rule.action,
                    identity=identity,
                    proto=proto,
                    port=port,
                    policy=origin.name,
                    manifest=origin.kind,
                )

    def _who(self, peers: tuple[Peer, ...] | None) -> _Who:
        """Return the identities peers mean: ``any``, or numbers in order."""
        if peers is None:
            return ("any",)
        answer = self._answers.get(peers)
        if answer is None:
            answer = self._answers[peers] = self._find(peers)
        return answer

    def _find(self, peers: tuple[Peer, ...]) -> _Who:
        found: set[int] = set()
        for peer in peers:
            if peer.entity == "all":
                return ("any",)
            if peer.entity is not None:
                found |= self._entities[peer.entity]
            elif peer.cidr is not None:
                found |= self._cidrs.inside(peer.cidr, peer.excepts)
            elif peer.selector is not None:
                found |= self._roster.index.select(peer.selector)
        return tuple(sorted(found))


def _ports(rule: PolicyRule) -> Iterator[tuple[Proto, str]]:
    for one in rule.ports:
        yield one.proto, "any" if one.ports is None else str(one.ports)


def _selects(policy: Policy, endpoint: str, direction: Direction) -> Rule:
    """Return what stands for the default deny: no entry comes of it, it names the policy."""
    return Rule(
        kind="selects",
        index=0,
        file=policy.origin.file,
        line=policy.origin.line,
        endpoint=endpoint,
        direction=direction,
        action="deny",
        identity="any",
        proto="any",
        port="any",
        policy=policy.origin.name,
        manifest=policy.origin.kind,
    )
