"""csrc/tables/lb.c beside its slow twin: any sequence of changes, look-ups and restarts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fwd.model.rows import Address, BackendRow, ServiceRow
from tests.csrc.tables.lb_driver import Services
from tests.models.lb import Lb, key_of

CAPS = (3, 6, 3, 2)
AFFINITY, TWO_SCOPES = 16, 32 << 8
FRONTENDS = [
    (ip_address("10.96.0.1"), 80, 6),
    (ip_address("10.96.0.1"), 80, 17),
    (ip_address("fd00::96"), 443, 6),
]
CLIENTS = [ip_address(text) for text in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1")]
frontends = st.sampled_from(FRONTENDS)
clients = st.sampled_from(CLIENTS)


@st.composite
def services(draw: st.DrawFn) -> ServiceRow:
    """A row; every frontend has two reverse NAT ids of its own to choose from."""
    number = draw(st.integers(0, len(FRONTENDS) - 1))
    addr, port, proto = FRONTENDS[number]
    return ServiceRow(
        addr,
        port,
        proto,
        scope=draw(st.integers(0, 1)),
        flags=draw(st.sampled_from([0, AFFINITY, TWO_SCOPES])),
        rev_nat_id=1 + number + 10 * draw(st.integers(0, 1)),
        affinity_timeout_s=draw(st.integers(1, 6)),
        backends=tuple(draw(st.lists(st.integers(1, 5), max_size=5, unique=True))),
    )


backends = st.builds(
    BackendRow,
    id=st.integers(1, 5),
    addr=clients,
    port=st.integers(0, 65535),
    proto=st.just(6),
    state=st.sampled_from([0, 0, 0, 1, 2, 3]),
)


class Beside(RuleBasedStateMachine):
    """The tables and the twin, told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Services(*CAPS)
        self.twin = Lb(*CAPS)
        self.now_s = 1000

    def teardown(self) -> None:
        """Unmap."""
        self.real.close()

    @rule(row=services())
    def service_upsert(self, row: ServiceRow) -> None:
        """Rows that do not fit are refused by both, with a reason."""
        written = self.real.service_upsert(row)
        assert written == self.twin.service_upsert(row)
        assert written or "is full" in self.real.text()

    @rule(row=services())
    def service_delete(self, row: ServiceRow) -> None:
        """A service goes, whatever its row says beside the key."""
        assert self.real.service_delete(row) == (
            self.twin.services.pop(key_of(row), None) is not None
        )

    @rule(row=backends)
    def backend_upsert(self, row: BackendRow) -> None:
        """New backends, and old ones in another state."""
        assert self.real.backend_upsert(row) == self.twin.backend_upsert(row)

    @rule(number=st.integers(1, 5))
    def backend_delete(self, number: int) -> None:
        """A backend goes while slots may still name it."""
        deleted = self.real.lib.fwd_backend_delete(self.real.dp, number)
        assert bool(deleted) == (self.twin.backends.pop(number, None) is not None)

    @rule(frontend=frontends, random=st.integers(0, 2**64 - 1))
    def select(self, frontend: Any, random: int) -> None:
        """A draw gives one of the active backends, nothing when there is none."""
        found, row = self.both(frontend)
        if row is not None:
            chosen, choices = self.real.select(found, random), self.twin.choices(row)
            assert chosen in choices if choices else chosen is None

    @rule(frontend=frontends, client=clients, pause_s=st.integers(0, 6))
    def affinity_get(self, frontend: Any, client: Address, pause_s: int) -> None:
        """Who asks again within the timeout gets the same backend."""
        self.now_s += pause_s
        found, row = self.both(frontend)
        if row is not None:
            expected = self.twin.affinity_get(row, client, self.now_s)
            assert self.real.affinity_get(found, client, self.now_s) == expected

    @rule(frontend=frontends, client=clients, backend=st.integers(1, 5))
    def affinity_set(self, frontend: Any, client: Address, backend: int) -> None:
        """Uses are a second apart, so that one entry is the longest unused."""
        self.now_s += 1
        found, row = self.both(frontend)
        if row is not None:
            self.real.affinity_set(found, client, backend, self.now_s)
            self.twin.affinity_set(row, client, backend, self.now_s)

    @rule()
    def restart(self) -> None:
        """Another process attaches the arena."""
        self.real.restart()

    def both(self, frontend: Any) -> tuple[Any, ServiceRow | None]:
        """The service both find for a pod's traffic; they must agree."""
        found, row = self.real.lookup(*frontend), self.twin.lookup(frontend)
        assert (found is None) == (row is None)
        if found is not None and row is not None:
            seen = (found.key.scope, found.flags, found.rev_nat_id, found.count)
            assert seen == (row.scope, row.flags, row.rev_nat_id, len(row.backends))
        return found, row

    @invariant()
    def sizes_and_frontends_agree(self) -> None:
        """Nothing is left over, and every reverse NAT id leads where it should."""
        for frontend in FRONTENDS:
            self.both(frontend)
        for number in (*range(1, 4), *range(11, 14)):
            assert self.real.rev_nat(number) == self.twin.rev_nat(number)
        slots = sum(len(row.backends) for row in self.twin.services.values())
        assert self.real.count("service") == len(self.twin.services)
        assert self.real.count("slot") == slots
        assert self.real.count("backend") == len(self.twin.backends)
        assert self.real.count("affinity") == len(self.twin.affinity)


TestBeside = Beside.TestCase
TestBeside.settings = settings(max_examples=60, stateful_step_count=30)


@pytest.fixture
def lb() -> Iterator[Services]:
    """Room for a hundred backends of one service."""
    made = Services(4, 256, 128, 16)
    yield made
    made.close()


ADDR, PORT, PROTO = FRONTENDS[0]


def filled(lb: Services, states: list[int], **fields: Any) -> Any:
    """One service with a backend a state; returns it as C has it."""
    for number, state in enumerate(states, 1):
        assert lb.backend_upsert(BackendRow(number, CLIENTS[0], number, 6, state))
    ids = tuple(range(1, len(states) + 1))
    assert lb.service_upsert(
        ServiceRow(ADDR, PORT, PROTO, 0, fields.pop("flags", 0), 1, backends=ids, **fields)
    )
    return lb.lookup(ADDR, PORT, PROTO)


@pytest.mark.parametrize("states", [[0, 0, 0], [0, 1, 0], [1, 0, 1, 1, 0, 1], [0] * 50 + [3] * 50])
def test_lb_select_is_fair_to_the_active(lb: Services, states: list[int]) -> None:
    """Drained backends get nothing and their neighbours no more than the others."""
    service = filled(lb, states)
    active = [number for number, state in enumerate(states, 1) if state == 0]
    draws = 400 * len(active)
    count = Counter(lb.select(service, (n * 0x9E3779B97F4A7C15) % 2**64) for n in range(draws))
    assert set(count) == set(active)
    assert max(count.values()) < 1.4 * 400
    assert min(count.values()) > 0.6 * 400


def test_lb_select_finds_the_one_that_is_left(lb: Services) -> None:
    """Whatever the draw, one active backend among a hundred is found; none among none."""
    service = filled(lb, [1] * 99 + [0])
    assert {lb.select(service, n) for n in range(200)} == {100}
    assert lb.backend_upsert(BackendRow(100, CLIENTS[0], 1, 6, 1))
    assert lb.select(service, 5) is None


def test_lb_affinity_ends_at_exactly_the_timeout(lb: Services) -> None:
    """At last use + timeout it is over, a second before it is not."""
    service = filled(lb, [0], flags=AFFINITY, affinity_timeout_s=10)
    lb.affinity_set(service, CLIENTS[0], 1, 1000)
    assert lb.affinity_get(service, CLIENTS[0], 1009) == 1
    assert lb.affinity_get(service, CLIENTS[0], 1010) is None
    assert lb.count("affinity") == 0
    lb.affinity_set(service, CLIENTS[0], 1, 2**32 - 5)
    assert lb.affinity_get(service, CLIENTS[0], 2**32 - 1) == 1, "seconds do not wrap"


def test_lb_affinity_full_keeps_most_clients(lb: Services) -> None:
    """Newcomers of one second each push out one of the old, not one another."""
    service = filled(lb, [0], flags=AFFINITY, affinity_timeout_s=100)
    for n in range(16):
        lb.affinity_set(service, ip_address(f"10.1.0.{n}"), 1, 1000 + n)
    for n in range(4):
        lb.affinity_set(service, ip_address(f"10.2.0.{n}"), 1, 1050)
    assert lb.count("affinity") == 16
    new = [lb.affinity_get(service, ip_address(f"10.2.0.{n}"), 1050) for n in range(4)]
    assert new == [1] * 4


def test_lb_attach_drops_slots_without_a_head(lb: Services) -> None:
    """A writer killed over a service's head leaves no slots and no reverse NAT behind."""
    service = filled(lb, [0, 0, 0])
    lb.ffi.cast("uint32_t *", service)[-1] = 0  # the slot's state: being written
    lb.restart()
    assert lb.lookup(ADDR, PORT, PROTO) is None
    assert (lb.count("service"), lb.count("slot"), lb.count("backend")) == (0, 0, 3)
    assert lb.rev_nat(1) is None
    filled(lb, [0, 0])


def test_lb_attach_bounds_a_damaged_count(lb: Services) -> None:
    """A count no table could hold is not walked."""
    service = filled(lb, [0, 0, 0])
    service.count = 2**32 - 1
    lb.restart()
    found = lb.lookup(ADDR, PORT, PROTO)
    assert found.count == 0
    assert lb.select(found, 1) is None
