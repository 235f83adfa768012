"""Services of the node file to rows: frontends with their slots, and the backends behind them.

Pure. Numbers are derived from what they stand for, so that a reload, a restart and the other nodes
give the same ones, whatever else the file holds: connections name services and backends by number.
Source: datapath reference 2.4.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from fwd.model.rows import BackendRow, ServiceRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from fwd.config.schema import BackendRow as BackendSection
    from fwd.config.schema import ServiceSection
    from fwd.model.rows import Address

__all__ = ["SERVICE_FLAGS", "SERVICE_PROTOS", "compile_services", "service_names",
           "wildcard_numbers"]  # fmt: skip

SERVICE_FLAGS: Final[Mapping[str, int]] = {
    "external_ip": 1,
    "node_port": 2,
    "ext_local": 4,
    "host_port": 8,
    "affinity": 16,
    "load_balancer": 32,
    "routable": 64,
    "source_range": 128,
    "int_local": 16 << 8,
    "two_scopes": 32 << 8,
}
"""Words of the node file to FWD_SVC_* of csrc/abi.h."""
SERVICE_PROTOS: Final[Mapping[str, int]] = {"tcp": 6, "udp": 17, "sctp": 132}
_SCOPES: Final = {"external": 0, "internal": 1}
_STATES: Final = {"active": 0, "terminating": 1, "quarantined": 2, "maintenance": 3}
_REV_NAT_IDS = 0xFFFF
_BACKEND_IDS = 0xFFFFFFFF
_Target = tuple[int, int, int, int]
"""(IP version, address, port, protocol): of a frontend or a backend, and the order of both."""


def compile_services(
    services: Iterable[ServiceSection],
) -> tuple[tuple[ServiceRow, ...], tuple[BackendRow, ...]]:
    """Return the rows of ``services``: frontends in the file's order, backends by address.

    Both scopes of a frontend have one rev_nat_id; a backend that several services share is one row.

    Args:
        services: checked sections (no duplicates, at most 65535 frontends).
    """
    services = tuple(services)
    rev_nat = _number((_frontend(one) for one in services), _REV_NAT_IDS)
    states = {
        _backend(service, backend): (backend.ip, _STATES[backend.state])
        for service in services
        for backend in service.backends
    }
    ids = _number(states, _BACKEND_IDS)
    backends = tuple(
        BackendRow(ids[key], addr, port=key[2], proto=key[3], state=state)
        for key, (addr, state) in sorted(states.items())
    )
    rows = tuple(
        ServiceRow(
            frontend=service.frontend,
            port=service.port,
            proto=SERVICE_PROTOS[service.proto],
            scope=_SCOPES[service.scope],
            flags=sum(SERVICE_FLAGS[flag] for flag in set(service.flags)),
            rev_nat_id=rev_nat[_frontend(service)],
            affinity_timeout_s=service.affinity_timeout_s,
            backends=tuple(ids[_backend(service, backend)] for backend in service.backends),
        )
        for service in services
    )
    return rows, backends


def service_names(services: Iterable[ServiceSection], rows: Iterable[ServiceRow]) -> dict[int, str]:
    """Return rev_nat_id to the name of its service; ``rows`` are those of ``services``."""
    return {row.rev_nat_id: one.name for one, row in zip(services, rows, strict=True)}


def wildcard_numbers(addrs: Iterable[Address], taken: Collection[int]) -> dict[Address, int]:
    """Return a rev_nat_id for each of ``addrs`` that is none of ``taken``, the services' own."""
    targets: dict[_Target, Address] = {(addr.version, int(addr), 0, 0): addr for addr in addrs}
    numbers = _number(targets, _REV_NAT_IDS, taken)
    return {targets[target]: number for target, number in numbers.items()}


def _target(addr: Address, port: int, proto: str) -> _Target:
    return addr.version, int(addr), port, SERVICE_PROTOS[proto]


def _frontend(service: ServiceSection) -> _Target:
    return _target(service.frontend, service.port, service.proto)


def _backend(service: ServiceSection, backend: BackendSection) -> _Target:
    return _target(backend.ip, backend.port, service.proto)


def _number(
    targets: Iterable[_Target], most: int, others: Collection[int] = ()
) -> dict[_Target, int]:
    """Give each target a number from 1 to ``most`` by its hash.

    Where two meet, the later one in order takes the next free number, so only a collision makes one
    target's number depend on another's presence. ``others`` are numbers that are not free.
    """
    taken = set(others)
    numbers: dict[_Target, int] = {}
    for target in sorted(set(targets)):
        digest = hashlib.blake2b(repr(target).encode(), digest_size=8).digest()
        number = int.from_bytes(digest, "big") % most + 1
        while number in taken:
            number = number % most + 1
        taken.add(number)
        numbers[target] = number
    return numbers
