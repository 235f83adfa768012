"""csrc/tables/lpm.c: sorted ranges against a list that is searched whole."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.csrc.internal import internal
from tests.csrc.tables.region import Region

CAP = 64
LAST = 2**32 - 1


class Lpm:
    """The ranges of some prefixes; a prefix's reference is its place in the list, from 1 on."""

    def __init__(self, prefixes: list[IPv4Network]) -> None:
        _, self.lib = internal()
        self.region = Region("lpm", self.lib.lpm_size(CAP))
        self.lib.lpm_init(self.region.table, CAP)
        self.build(prefixes)

    def build(self, prefixes: list[IPv4Network]) -> None:
        """Make the ranges anew."""
        self.lib.lpm_begin(self.region.table)
        for ref, prefix in enumerate(prefixes, 1):
            first = int(prefix.network_address)
            self.lib.lpm_add(self.region.table, first, prefix.prefixlen, ref)
        self.lib.lpm_finish(self.region.table)

    def lookup(self, addr: int) -> int:
        """Return the reference, 0 = none."""
        self.lib.lpm_prefetch(self.region.table, addr)
        return int(self.lib.lpm_lookup(self.region.table, addr))


def slow(prefixes: list[IPv4Network], addr: int) -> int:
    """The longest prefix of a list that is searched whole."""
    best = (-1, 0)
    for ref, prefix in enumerate(prefixes, 1):
        shift = 32 - prefix.prefixlen
        if addr >> shift == int(prefix.network_address) >> shift:
            best = max(best, (prefix.prefixlen, ref))
    return best[1]


near = st.sampled_from([0, 1 << 31, 0x0AF40000, 0x0AF3FFFF, 0x0AF40080, 0xFFFF0000, LAST])
first = near | st.integers(0, LAST)
prefix = st.builds(
    lambda addr, length: IPv4Network((addr >> (32 - length) << (32 - length), length)),
    first,
    st.integers(0, 32),
)


@settings(max_examples=300)
@given(st.lists(prefix, max_size=CAP, unique=True), st.lists(first, max_size=20))
def test_ranges_answer_as_the_list_does(prefixes: list[IPv4Network], asked: list[int]) -> None:
    """Nested, adjacent, touching both ends: every edge and its neighbours, and random addresses."""
    lpm = Lpm(prefixes)
    ends = [int(end) for one in prefixes for end in (one[0], one[-1])]
    edges = [end + step for end in ends for step in (-1, 0, 1)]
    for addr in [*asked, *(edge for edge in edges if 0 <= edge <= LAST), 0, LAST]:
        assert lpm.lookup(addr) == slow(prefixes, addr), hex(addr)
    assert lpm.region.guards_hold()


def test_no_prefix_is_no_answer() -> None:
    """Without prefixes, and again after a build without any."""
    lpm = Lpm([])
    assert lpm.lookup(0) == lpm.lookup(LAST) == 0
    lpm.build([ip_network("0.0.0.0/0")])
    assert lpm.lookup(0x01020304) == 1
    lpm.build([])
    assert lpm.lookup(0x01020304) == 0


def test_runs_of_every_length_up_to_far_beyond_a_line() -> None:
    """The ranges of one run, from one to more than a cache line holds, each found at its ends."""
    for count in range(1, 40):
        prefixes = [IPv4Network((0x0A000000 | n << 4, 29)) for n in range(count)]
        lpm = Lpm(prefixes)
        for n in range(count):
            base = 0x0A000000 | n << 4
            want = [n + 1, n + 1, 0, 0]
            assert [lpm.lookup(base + off) for off in (0, 7, 8, 15)] == want


def test_most_ranges_that_a_table_can_make_fit() -> None:
    """As many prefixes as the table has, none touching another: two ranges each."""
    prefixes = [IPv4Network((n << 8, 31)) for n in range(CAP)]
    lpm = Lpm(prefixes)
    assert [lpm.lookup(n << 8 | 1) for n in range(CAP)] == list(range(1, CAP + 1))
    assert {lpm.lookup(n << 8 | 2) for n in range(CAP)} == {0}
    assert lpm.region.guards_hold()
