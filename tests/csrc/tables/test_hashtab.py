"""csrc/tables/hashtab.h through all tables built on it: what attach takes, drops and refuses.

The endpoint table, which is no hash, makes the same promises and is tested with them.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwd.model.rows import IpcacheRow, PolicyRow
from tests.csrc.internal import internal
from tests.csrc.tables.region import Region, dump, fill_address, ipcache_c, policy_c

CAP, FILLED, SEED = 24, 20, 99


@dataclass(frozen=True)
class Kind:
    """One table: names in C, a row by number, and whether a lookup finds a dumped row again."""

    name: str
    struct: str
    row: str
    make: Callable[[int], Any]
    finds: Callable[[Any, Any], bool]
    seeded: bool = True

    def call(self, verb: str, *args: Any) -> Any:
        """Call ``<name>_<verb>``."""
        return getattr(internal()[1], f"{self.name}_{verb}")(*args)

    def empty(self) -> Region:
        """Return an initialised table of ``CAP`` rows."""
        region = Region(self.struct, self.call("size", CAP))
        self.call("init", region.table, CAP, *([SEED] if self.seeded else []))
        return region

    def filled(self) -> Region:
        """Return a table with ``FILLED`` rows, after some coming and going."""
        region = self.empty()
        for n in range(FILLED + 4):
            assert self.upsert(region, self.make(n)) == 0
        for n in (0, 5, FILLED, FILLED + 1, FILLED + 2, FILLED + 3):
            assert self.delete(region, self.make(n)) == 1
        for n in (0, 5):
            assert self.upsert(region, self.make(n)) == 0
        return region

    def upsert(self, region: Region, row: Any) -> int:
        """Write a row; 0 or -1."""
        return int(self.call("upsert", region.table, row, internal()[0].NULL))

    def delete(self, region: Region, row: Any) -> int:
        """Delete the row's key; 1 or 0."""
        key = {
            "endpoint": lambda: row.lxc_id,
            "lxc": lambda: addr_of(row.addr),
            "peer": lambda: addr_of(row.ip),
        }.get(self.name, lambda: row)
        return int(self.call("delete", region.table, key()))

    def validate(self, region: Region, cap: int = CAP, size: int | None = None) -> bool:
        """Attach."""
        return bool(self.call("validate", region.table, region.size if size is None else size, cap))

    def rows(self, region: Region) -> list[bytes]:
        """Return all rows as bytes, sorted."""
        ffi, _ = internal()
        return sorted(bytes(ffi.buffer(row)) for row in self.dumped(region))

    def dumped(self, region: Region) -> list[Any]:
        """Return all rows."""
        return dump(getattr(internal()[1], f"{self.name}_dump"), region.table, self.row)

    def count(self, region: Region) -> int:
        """Return what the table says it holds."""
        stats = internal()[0].new("struct fwd_table_stats *")
        self.call("stats", region.table, stats)
        return int(stats.count)


def addr_of(source: Any) -> Any:
    """Return a ``struct fwd_addr *`` of its own."""
    return internal()[0].new("struct fwd_addr *", source)


def make_ipcache(n: int) -> Any:
    """Prefixes of several lengths."""
    prefix = ip_network((0x0A000000 + (n << 8), 24 + n % 9))
    return ipcache_c(IpcacheRow(prefix, n, IPv4Address(n + 1) if n % 2 else None))


def find_ipcache(table: Any, row: Any) -> bool:
    """Look the prefix's own address up."""
    _, lib = internal()
    found = lib.ipcache_lookup(table, addr_of(row.prefix))
    return bool(found) and found.prefix_len >= row.prefix_len


def make_policy(n: int) -> Any:
    """Rows of several groups and prefix lengths."""
    prefix_len = (0, 8, 16, 24)[n % 4]
    proto, port = (6 if prefix_len else 0), (0x5000 if prefix_len > 8 else 0)
    group = (1 + n // 8, 1 + n // 4 % 2, n // 4)
    return policy_c(PolicyRow(*group, proto, port, prefix_len, deny=False, rule_id=9))


def find_policy(table: Any, row: Any) -> bool:
    """Ask for the row's own packet."""
    ffi, lib = internal()
    names = ("lxc_id", "dir", "identity", "proto", "port")
    key = ffi.new("struct policy_key *", {name: getattr(row, name) for name in names})
    key.l3_l4 = 1
    return bool(lib.policy_lookup(table, key).rule_id)


def make_lxc(n: int) -> Any:
    """Addresses of endpoints, the first one the node's."""
    row = internal()[0].new("struct fwd_lxc_row *", {"lxc_id": n, "flags": int(n == 0)})
    fill_address(row.addr, IPv4Address(0x0A000000 + n))
    return row


def find_lxc(table: Any, row: Any) -> bool:
    """Look the address up."""
    found = internal()[1].lxc_lookup(table, addr_of(row.addr))
    return bool(found) and found.lxc_id == row.lxc_id


def make_peer(n: int) -> Any:
    """Peers, every third with a fixed VNI."""
    fields = {"vni": n, "identity": n, "fixed_vni": int(n % 3 == 0)}
    row = internal()[0].new("struct fwd_peer_row *", fields)
    fill_address(row.ip, IPv4Address(0xC0A80000 + n))
    return row


def find_peer(table: Any, row: Any) -> bool:
    """Look the address up."""
    found = internal()[1].peer_lookup(table, addr_of(row.ip))
    return bool(found) and found.vni == row.vni


def make_endpoint(n: int) -> Any:
    """Endpoints with ids far apart."""
    return internal()[0].new(
        "struct fwd_endpoint_row *", {"lxc_id": 1 + n * 2000, "identity": n, "ifindex": n}
    )


def find_endpoint(table: Any, row: Any) -> bool:
    """Get it by its id."""
    found = internal()[1].endpoint_get(table, row.lxc_id)
    return bool(found) and found.identity == row.identity


KINDS = [
    Kind("ipcache", "ipcache", "fwd_ipcache_row", make_ipcache, find_ipcache),
    Kind("policy", "policy_table", "fwd_policy_row", make_policy, find_policy),
    Kind("lxc", "lxc_table", "fwd_lxc_row", make_lxc, find_lxc),
    Kind("peer", "peer_table", "fwd_peer_row", make_peer, find_peer),
    Kind("endpoint", "endpoint_table", "fwd_endpoint_row", make_endpoint, find_endpoint, False),
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@every_kind
def test_attach_keeps_every_row(kind: Kind) -> None:
    """A healthy table at another address answers as before, and goes on taking rows."""
    old, new = kind.filled(), kind.empty()
    new.content = old.content
    assert kind.validate(new)
    assert kind.rows(new) == kind.rows(old)
    assert kind.count(new) == FILLED
    assert all(kind.finds(new.table, row) for row in kind.dumped(new))
    for n in range(FILLED, CAP):
        assert kind.upsert(new, kind.make(n)) == 0
    assert kind.upsert(new, kind.make(CAP)) == -1
    assert new.guards_hold()


@every_kind
def test_attach_again_changes_nothing(kind: Kind) -> None:
    """A table that was attached is a table that can be attached."""
    region = kind.filled()
    before = kind.rows(region)
    for _ in range(2):
        assert kind.validate(region)
        assert kind.rows(region) == before


@every_kind
def test_attach_refuses_another_layout(kind: Kind) -> None:
    """Another capacity or too small a region is not this table, and is left as it was."""
    region = kind.filled()
    content = region.content
    assert not kind.validate(region, cap=CAP + 1)
    assert not kind.validate(region, cap=CAP - 1)
    assert not kind.validate(region, size=region.size - 1)
    assert region.content == content


@every_kind
def test_attach_survives_any_bytes(kind: Kind) -> None:
    """Random damage anywhere: attach refuses, or what is left is consistent and safe to use."""
    rng = random.Random(f"damage {kind.name}")
    sound = kind.filled().content
    refused = shrunk = 0
    for _ in range(150):
        region = kind.empty()
        region.content = damaged(sound, rng)
        if not kind.validate(region):
            refused += 1
            continue
        rows = kind.dumped(region)
        shrunk += len(rows) < FILLED
        assert len(rows) == kind.count(region) <= CAP
        assert all(kind.finds(region.table, row) for row in rows)
        exercise(kind, region, rng)
        assert region.guards_hold()
    assert refused, "no damage hit the header: the test proves less than it says"
    if kind.name != "endpoint":  # its slots are a small part of it: mostly index, which is rebuilt
        assert shrunk, "no damage hit a row: the test proves less than it says"


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Overwrite one to forty places: single bytes, words, and short runs."""
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 4, 40])):
        at = rng.choice([rng.randrange(len(out)), rng.randrange(min(64, len(out)))])
        run = rng.choice([b"\xff" * 4, b"\0" * 8, rng.randbytes(1), rng.randbytes(16), b"\1\0\0\0"])
        out[at : at + len(run)] = run[: len(out) - at]
    return bytes(out[: len(content)])


def exercise(kind: Kind, region: Region, rng: random.Random) -> None:
    """Empty the table by its own dump, then fill it to the last slot."""
    for row in kind.dumped(region):
        assert kind.delete(region, row) == 1
    assert kind.count(region) == 0
    numbers = list(range(CAP + 3))
    rng.shuffle(numbers)
    assert [kind.upsert(region, kind.make(n)) for n in numbers] == [0] * CAP + [-1] * 3
    assert kind.count(region) == len(kind.dumped(region)) == CAP


HASHED = [kind for kind in KINDS if kind.seeded]


@pytest.mark.parametrize("kind", HASHED, ids=lambda kind: kind.name)
def test_attach_drops_exactly_the_torn_row(kind: Kind) -> None:
    """A slot that was open when its writer died is free afterwards, the others stay."""
    region = kind.filled()
    content = bytearray(region.content)
    before = kind.rows(region)
    start = slot_of(kind, content, 3).start
    content[start + 4 : start + 8] = bytes(4)  # the state word
    region.content = bytes(content)
    assert kind.validate(region)
    left = kind.rows(region)
    assert len(left) == FILLED - 1
    assert set(left) < set(before)
    assert kind.count(region) == FILLED - 1


SLOT_LEN = {"ipcache": 48, "policy": 48, "lxc": 28, "peer": 36, "endpoint": 40}


def slot_of(kind: Kind, content: bytes, n: int) -> slice:
    """Return where the slot of row ``n`` lies."""
    row = kind.make(n)
    if kind.name == "endpoint":
        key, before = struct.pack("<IIH", row.identity, row.ifindex, row.lxc_id), 0
    else:
        key, before = key_of(kind, bytes(internal()[0].buffer(row))), 8
    assert content.count(key) == 1
    start = content.index(key) - before
    return slice(start, start + SLOT_LEN[kind.name])


@every_kind
def test_attach_keeps_one_of_two_slots_with_the_same_key(kind: Kind) -> None:
    """A key that a foreign hand wrote twice is there once, and gone after one delete."""
    region = kind.filled()
    content = bytearray(region.content)
    content[slot_of(kind, content, 4)] = content[slot_of(kind, content, 3)]
    region.content = bytes(content)
    assert kind.validate(region)
    assert len(set(kind.rows(region))) == len(kind.rows(region)) == FILLED - 1
    assert kind.delete(region, kind.make(3)) == 1
    assert kind.delete(region, kind.make(3)) == 0
    assert kind.count(region) == FILLED - 2


def tag_of(key: bytes) -> int:
    """Return hashtab_tag(hashtab_hash(key)) under the seed of :meth:`Kind.empty`."""

    def mix(a: int, b: int) -> int:
        product = a * b
        return product % 2**64 ^ product >> 64

    value, whole = SEED, len(key) // 8 * 8
    for (word,) in struct.iter_unpack("<Q", key[:whole]):
        value = mix(value ^ word, 0x9E3779B97F4A7C15)
    if key[whole:]:
        value = mix(value ^ int.from_bytes(key[whole:], "little"), 0xA0761D6478BD642F)
    return mix(value ^ 0xE7037ED1A0B428DB, SEED ^ 0x8EBC6AF09C88C6E3) >> 32 | 1


FORGED = [
    # table, length of its key, byte of the slot, what to write there
    pytest.param("ipcache", 18, 24, 9, id="ipcache of family 9"),
    pytest.param("ipcache", 18, 25, 200, id="ipcache with 200 bits"),
    pytest.param("ipcache", 18, 23, 1, id="ipcache with host bits"),
    pytest.param("policy", 12, 12, 0, id="policy of endpoint 0"),
    pytest.param("policy", 12, 16, 3, id="policy in direction 3"),
    pytest.param("policy", 12, 18, 255, id="policy with 255 bits"),
    pytest.param("policy", 12, 20, 0, id="policy of rule 0"),
    pytest.param("policy", 12, 24, 2, id="policy that half denies"),
    pytest.param("lxc", 16, 26, 1, id="address of the host and an endpoint"),
    pytest.param("peer", 16, 27, 1, id="peer with a VNI of 25 bits"),
    pytest.param("peer", 16, 32, 2, id="peer with a third mode"),
]


@pytest.mark.parametrize(("name", "key_len", "at", "value"), FORGED)
def test_attach_drops_what_upsert_would_refuse(
    name: str, key_len: int, at: int, value: int
) -> None:
    """A row that nobody could have written is not used, even with a tag that holds."""
    kind = next(kind for kind in KINDS if kind.name == name)
    region = kind.filled()
    content = bytearray(region.content)
    slot = slot_of(kind, content, 3)
    assert content[slot][4:8] == struct.pack("<I", tag_of(content[slot][8 : 8 + key_len]))
    content[slot.start + at] = value
    tag = struct.pack("<I", tag_of(content[slot][8 : 8 + key_len]))
    content[slot.start + 4 : slot.start + 8] = tag
    region.content = bytes(content)
    assert kind.validate(region)
    assert kind.count(region) == len(kind.rows(region)) == FILLED - 1
    assert region.guards_hold()


@settings(max_examples=40)
@given(st.sampled_from(KINDS), st.lists(st.integers(0, FILLED - 1), max_size=8), st.integers(1, 5))
def test_dump_by_cursor_sees_each_row_that_stays_once(
    kind: Kind, leaving: list[int], page: int
) -> None:
    """Rows may go and come while a dump is under way; those that stay are seen exactly once."""
    ffi, lib = internal()
    region = kind.filled()
    stays = {bytes(ffi.buffer(kind.make(n))) for n in range(FILLED) if n not in leaving}
    cursor, seen, todo = ffi.new("uint64_t *", 0), [], list(leaving)
    while True:
        rows = ffi.new(f"struct {kind.row}[]", page)
        n = getattr(lib, f"{kind.name}_dump")(region.table, cursor, rows, page)
        seen += [bytes(ffi.buffer(ffi.addressof(rows, i), ffi.sizeof(rows[i]))) for i in range(n)]
        if cursor[0] == 0:
            break
        if todo:
            gone = kind.make(todo.pop())
            if kind.delete(region, gone):
                assert kind.upsert(region, kind.make(CAP + len(todo))) == 0
    known = [key_of(kind, row) for row in seen]
    for row in stays:
        assert known.count(key_of(kind, row)) == 1


def key_of(kind: Kind, row: bytes) -> bytes:
    """Return the bytes of a row that its table looks up by, as they lie in a slot."""
    if kind.name == "ipcache":
        return row[:16] + row[36:38]
    if kind.name == "policy":
        return row[:4] + row[8:15]
    return row[:2] if kind.name == "endpoint" else row[:16]


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=10)
def test_chains_stay_short_under_any_seed(seed: int) -> None:
    """Neighbouring addresses spread over the heads: no chain of 1000 rows is longer than 8."""
    ffi, lib = internal()
    cap = 1000
    region = Region("lxc_table", lib.lxc_size(cap))
    lib.lxc_init(region.table, cap, seed)
    for n in range(cap):
        row = make_lxc(n)
        assert lib.lxc_upsert(region.table, row, ffi.NULL) == 0
    buckets, slot_size = 2048, 28
    words = memoryview(region.content).cast("I")
    heads, slots = words[16 : 16 + buckets], words[16 + buckets :]
    for head in heads:
        length, ref = 0, head
        while ref:
            ref = slots[(ref - 1) * slot_size // 4]
            length += 1
        assert length <= 8
