"""Slow twin of csrc/tables/lb.c: services as dicts, affinity as a dict in order of use.

Source: datapath reference 2.4, 4.1, 4.3, 4.4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fwd.model.rows import Address, BackendRow, ServiceRow

__all__ = ["Lb"]

ACTIVE = 0
TWO_SCOPES = 32 << 8
Frontend = tuple[Address, int, int]
Key = tuple[Address, int, int, int]


def key_of(row: ServiceRow) -> Key:
    """What a service is found by."""
    return (row.frontend, row.port, row.proto, row.scope)


@dataclass
class Lb:
    """Capacities in rows."""

    services_cap: int
    slots_cap: int
    backends_cap: int
    affinity_cap: int
    services: dict[Key, ServiceRow] = field(default_factory=dict)
    backends: dict[int, BackendRow] = field(default_factory=dict)
    affinity: dict[tuple[Address, int], tuple[int, int]] = field(default_factory=dict)
    """(client, rev_nat_id) to (backend id, last use in seconds)."""

    def service_upsert(self, row: ServiceRow) -> bool:
        """False = no room."""
        others = {key: one for key, one in self.services.items() if key != key_of(row)}
        slots = sum(len(one.backends) for one in others.values()) + len(row.backends)
        if len(others) >= self.services_cap or slots > self.slots_cap:
            return False
        self.services[key_of(row)] = row
        return True

    def backend_upsert(self, row: BackendRow) -> bool:
        """False = no room."""
        if row.id not in self.backends and len(self.backends) >= self.backends_cap:
            return False
        self.backends[row.id] = row
        return True

    def lookup(self, frontend: Frontend) -> ServiceRow | None:
        """What traffic of a pod to ``frontend`` is for."""
        service = self.services.get((*frontend, 0))
        if service is not None and service.flags & TWO_SCOPES:
            return self.services.get((*frontend, 1))
        return service

    def choices(self, service: ServiceRow) -> set[int]:
        """The backends a new flow may get."""
        rows = (self.backends.get(one) for one in service.backends)
        return {row.id for row in rows if row is not None and row.state == ACTIVE}

    def rev_nat(self, number: int) -> tuple[Address, int] | None:
        """The frontend behind a reverse NAT id."""
        rows = (row for row in self.services.values() if row.rev_nat_id == number)
        return next(((row.frontend, row.port) for row in rows), None)

    def affinity_get(self, service: ServiceRow, client: Address, now_s: int) -> int | None:
        """The backend a client sticks to; an entry that no longer holds is forgotten."""
        key = (client, service.rev_nat_id)
        if key not in self.affinity:
            return None
        backend, last_s = self.affinity[key]
        if last_s + service.affinity_timeout_s > now_s and backend in self.choices(service):
            return backend
        del self.affinity[key]
        return None

    def affinity_set(self, service: ServiceRow, client: Address, backend: int, now_s: int) -> None:
        """Remember a use; the longest unused entry makes room."""
        key = (client, service.rev_nat_id)
        if key not in self.affinity and len(self.affinity) >= self.affinity_cap:
            del self.affinity[min(self.affinity, key=lambda one: self.affinity[one][1])]
        self.affinity[key] = (backend, now_s)
