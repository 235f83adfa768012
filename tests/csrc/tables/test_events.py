"""csrc/tables/events.c: a ring that overwrites its oldest record and counts what was lost."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.csrc.internal import internal
from tests.csrc.tables.region import Region


class Ring:
    """The ring under test; events are told apart by their time."""

    def __init__(self, cap: int) -> None:
        self.ffi, self.lib = internal()
        self.region = Region("event_ring", self.lib.events_size(cap))
        self.ring = self.region.table
        self.lib.events_init(self.ring, cap)
        self.lost = self.ffi.new("uint64_t *", 0)

    def write(self, time_ns: int) -> None:
        """Fill the next slot, every byte of it."""
        event = self.lib.events_next(self.ring)
        self.ffi.memmove(
            event,
            bytes([time_ns & 0xFF]) * self.ffi.sizeof("struct fwd_event"),
            self.ffi.sizeof("struct fwd_event"),
        )
        event.time_ns = time_ns

    def read(self, limit: int) -> list[int]:
        """Return the times of at most ``limit`` unread events."""
        events = self.ffi.new("struct fwd_event[]", limit)
        n = self.lib.events_read(self.ring, events, limit, self.lost)
        assert all(events[i].data[127] == events[i].time_ns & 0xFF for i in range(n))
        return [events[i].time_ns for i in range(n)]


@settings(max_examples=80)
@given(st.sampled_from([1, 2, 8]), st.lists(st.integers(-12, 12), max_size=40))
def test_events_come_in_order_and_losses_are_counted(cap: int, todo: list[int]) -> None:
    """Whatever is written and read in turn, the last ``cap`` events are there, in order."""
    ring, model = Ring(cap), deque[int](maxlen=cap)
    written = lost = 0
    for n in todo:  # n > 0 writes n events, n < 0 reads at most -n
        for _ in range(n):
            lost += len(model) == cap
            model.append(written)
            ring.write(written)
            written += 1
        if n < 0:
            wanted = [model.popleft() for _ in range(min(-n, len(model)))]
            assert ring.read(-n) == wanted
            assert ring.lost[0] == lost
    assert ring.read(cap) == list(model)
    assert ring.lost[0] == lost
    assert ring.region.guards_hold()


def test_events_reading_nothing_still_tells_the_losses() -> None:
    """A reader without room learns how many records were overwritten."""
    ring = Ring(2)
    for n in range(5):
        ring.write(n)
    assert ring.read(0) == []
    assert ring.lost[0] == 3
    assert ring.read(9) == [3, 4]
    assert ring.lost[0] == 3


def test_events_unread_at_attach_count_as_lost() -> None:
    """A half-written record is never read: what the old process had not read is lost."""
    old = Ring(4)
    for n in range(3):
        old.write(n)
    new = Ring(4)
    new.region.content = old.region.content
    assert new.lib.events_validate(new.ring, new.region.size, 4)
    assert new.read(9) == []
    assert new.lost[0] == 3
    new.write(7)
    assert new.read(9) == [7]


@pytest.mark.parametrize(("cap", "size_less"), [(8, 0), (2, 0), (0, 0), (3, 0), (4, 1)], ids=str)
def test_events_validate_refuses_another_layout(cap: int, size_less: int) -> None:
    """Another capacity, one that is no power of two, or too small a region is not this ring."""
    ring = Ring(4)
    assert not ring.lib.events_validate(ring.ring, ring.region.size - size_less, cap)


@given(st.binary(min_size=64, max_size=64))
def test_events_any_header_bytes_leave_a_safe_ring(header: bytes) -> None:
    """Whatever the positions are, an attached ring stays inside its region."""
    ring = Ring(4)
    known = (4).to_bytes(4, "little") + header[4:24] + bytes(8)  # capacity, positions, lost 0
    ring.region.content = known + header[32:] + ring.region.content[64:]
    assert ring.lib.events_validate(ring.ring, ring.region.size, 4)
    assert ring.read(9) == []
    assert ring.lost[0] <= 4
    for n in range(9):
        ring.write(n)
    assert ring.read(9) == [5, 6, 7, 8]
    assert ring.region.guards_hold()
