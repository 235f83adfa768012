"""The arena: layout from parameters, attach and what it refuses, damage and sudden death."""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.csrc.internal import internal
from tests.csrc.tables.ct_driver import BOOT_ID, CAPACITIES, CtDriver, fill_params
from tests.models.ct import Key, Limits, Packet, State

A, N = bytes(10) + b"\xff\xff\x0a\xf4\x00\x6c", bytes(10) + b"\xff\xff\x0a\xf4\x02\xab"
TABLES = 11


def flow(port: int, proto: int = 6) -> Key:
    """Return the key of one flow of the seed's pods."""
    return Key(A, N, 80, port, proto, 0)


@pytest.fixture
def arena() -> Iterator[CtDriver]:
    """An arena on a memfd with ten flows in it."""
    driver = CtDriver(64, Limits())
    for port in range(10):
        assert driver.create(flow(port), "egress", 60, 100, State(src_identity=port)) == 0
    yield driver
    driver.close()


def attach(fd: int, boot_id: bytes = BOOT_ID) -> tuple[object, int, str]:
    """Return ``(handle or NULL, torn, message)``."""
    ffi, lib = internal()
    torn, error = ffi.new("uint32_t *"), ffi.new("struct fwd_error *")
    handle = lib.fwd_dp_attach(fd, boot_id, torn, error)
    return handle, torn[0], ffi.string(error.message).decode()


def refusal(fd: int, boot_id: bytes = BOOT_ID) -> str:
    """Return why the arena is refused; it must be."""
    handle, _, message = attach(fd, boot_id)
    assert not handle
    return message


def poke(fd: int, offset: int, data: bytes) -> None:
    """Overwrite bytes of the memfd."""
    assert os.pwrite(fd, data, offset) == len(data)


def header(field: str) -> int:
    """Return the offset of a field of the arena's header."""
    return int(internal()[0].offsetof("struct arena_header", *field.split(".")))


def test_arena_versions_and_sizes_come_from_the_headers() -> None:
    """The library's ABI version is the header's, and more capacity needs more room."""
    ffi, lib = internal()
    params = ffi.new("struct fwd_params *")
    fill_params(params)
    small = lib.fwd_arena_size(params)
    assert lib.fwd_abi_version() == lib.FWD_ABI_VERSION
    for name in ("ct_tcp", "ct_any", *CAPACITIES):
        fill_params(params)
        setattr(params, name, 4096)
        assert lib.fwd_arena_size(params) > small, name


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ct_tcp", 0, "creating the arena: capacity ct_tcp is 0, use 1 to 134217728"),
        ("endpoints", 65536, "creating the arena: capacity endpoints is 65536, use 1 to 65535"),
        ("policy", 0xFFFFFFFF, "capacity policy is 4294967295"),
        ("events", 100, "capacity events is 100, use a power of two such as 128"),
    ],
)
def test_arena_create_refuses_senseless_capacities(field: str, value: int, message: str) -> None:
    """Zero, more than an index can name, or a ring that is no power of two."""
    ffi, lib = internal()
    params, error = ffi.new("struct fwd_params *"), ffi.new("struct fwd_error *")
    fill_params(params)
    setattr(params, field, value)
    assert not lib.fwd_dp_create(params, -1, error)
    assert message in ffi.string(error.message).decode()
    assert error.code != 0


def test_arena_create_says_which_descriptor_it_could_not_size() -> None:
    """A descriptor that is no file is named in the error."""
    ffi, lib = internal()
    params, error = ffi.new("struct fwd_params *"), ffi.new("struct fwd_error *")
    fill_params(params)
    reader, writer = os.pipe()
    assert not lib.fwd_dp_create(params, reader, error)
    assert f"memfd {reader}" in ffi.string(error.message).decode()
    os.close(reader)
    os.close(writer)


def test_arena_create_zeroes_what_the_memfd_held() -> None:
    """A memfd that was used before starts empty, settings included."""
    ffi, lib = internal()
    fd = os.memfd_create("fwd-test-arena")
    os.write(fd, b"\xff" * 100000)
    params, settings_ = ffi.new("struct fwd_params *"), ffi.new("struct fwd_settings *")
    fill_params(params)
    dp = lib.fwd_dp_create(params, fd, ffi.NULL)
    settings_.tunnel_port = 1
    lib.fwd_dp_settings_get(dp, settings_)
    assert bytes(ffi.buffer(settings_)) == bytes(ffi.sizeof("struct fwd_settings"))
    assert lib.fwd_dp_generation(dp) == 0
    assert os.fstat(fd).st_size == lib.fwd_arena_size(params)
    lib.fwd_dp_close(dp)
    os.close(fd)


def test_arena_anonymous_ones_do_not_share() -> None:
    """Two datapaths of one process know nothing of each other (D6)."""
    ffi, lib = internal()
    params = ffi.new("struct fwd_params *")
    fill_params(params)
    one, two = (lib.fwd_dp_create(params, -1, ffi.NULL) for _ in range(2))
    lib.fwd_dp_generation_set(one, 7)
    lib.metrics_add(one.metrics, 133, 1, 60)
    assert lib.fwd_dp_generation(two) == 0
    rows, cursor = ffi.new("struct fwd_metric_row[4]"), ffi.new("uint64_t *")
    assert lib.fwd_metrics_dump(two, cursor, rows, 4) == 0
    for dp in (one, two):
        lib.fwd_dp_close(dp)
    lib.fwd_dp_close(ffi.NULL)


def test_arena_metrics_come_page_by_page() -> None:
    """Only pairs that were counted are rows, in order of reason and direction."""
    ffi, lib = internal()
    params = ffi.new("struct fwd_params *")
    fill_params(params)
    dp = lib.fwd_dp_create(params, -1, ffi.NULL)
    for reason, direction in [(0, 1), (0, 2), (133, 1), (255, 3)]:
        lib.metrics_add(dp.metrics, reason, direction, 100 + reason)
    rows, cursor = ffi.new("struct fwd_metric_row[3]"), ffi.new("uint64_t *")
    seen = []
    while True:
        n = lib.fwd_metrics_dump(dp, cursor, rows, 3)
        seen += [(row.reason, row.dir, row.packets, row.bytes) for row in rows[0:n]]
        if cursor[0] == 0:
            break
    assert seen == [(0, 1, 1, 100), (0, 2, 1, 100), (133, 1, 1, 233), (255, 3, 1, 355)]
    lib.fwd_dp_close(dp)


def test_arena_every_table_has_numbers(arena: CtDriver) -> None:
    """Capacity and size of each table of enum fwd_table are told."""
    stats = arena.ffi.new("struct fwd_table_stats *")
    for table in range(TABLES):
        arena.lib.fwd_table_stats(arena.dp, table, stats)
        assert (stats.cap, stats.size > 0) == (64 if table < 2 else 16, True), table
    assert arena.stats(tcp=True).count == 10


def test_arena_attach_finds_everything_again(arena: CtDriver) -> None:
    """Entries, parameters, settings and generation survive the handle."""
    before = arena.rows(tcp=True), arena.rows(tcp=False)
    arena.lib.fwd_dp_generation_set(arena.dp, 42)
    assert arena.reattach() == 0
    assert (arena.rows(tcp=True), arena.rows(tcp=False)) == before
    params = arena.ffi.new("struct fwd_params *")
    arena.lib.fwd_dp_params(arena.dp, params)
    assert (params.ct_tcp, params.hash_seed) == (64, 0x5EED)
    assert arena.dp.settings.ct_tcp_s == Limits().tcp
    assert arena.lib.fwd_dp_generation(arena.dp) == 42
    status, _, _, state = arena.lookup(_packet(3), "egress", "bidir", 101)
    assert (status, state.src_identity) == (1, 3)


def _packet(port: int) -> Packet:
    return Packet(A, N, 6, port, 80, tcp_flags=16)


def test_arena_attach_finds_config_rows_again(arena: CtDriver) -> None:
    """The tables that control fills are read back as they were written."""
    ffi, lib, dp = arena.ffi, arena.lib, arena.dp
    prefix = {"prefix": {"b": N}, "identity": 27914, "family": 4, "prefix_len": 32}
    policy = {"lxc_id": 5, "dir": 1, "rule_id": 9}
    assert lib.fwd_ipcache_upsert(dp, ffi.new("struct fwd_ipcache_row *", prefix), ffi.NULL) == 0
    assert lib.fwd_policy_upsert(dp, ffi.new("struct fwd_policy_row *", policy), ffi.NULL) == 0
    arena.reattach()
    found = ffi.new("struct fwd_ipcache_row *")
    assert lib.fwd_ipcache_lookup(arena.dp, ffi.new("struct fwd_addr *", {"b": N}), found)
    assert found.identity == 27914
    rows, cursor = ffi.new("struct fwd_policy_row[4]"), ffi.new("uint64_t *")
    assert lib.fwd_policy_dump(arena.dp, cursor, rows, 4) == 1
    assert (rows[0].lxc_id, rows[0].rule_id) == (5, 9)


def test_arena_drops_a_torn_conntrack_entry(arena: CtDriver) -> None:
    """An entry whose key and check disagree is counted and gone, its nine neighbours stay."""
    fd = arena.fd
    wanted = bytes([0x0A, 0xF4, 0x02, 0xAB]) + b"\x00\x50" + b"\x00\x04"
    with mmap.mmap(fd, 0) as view:
        at = view.find(wanted)
        assert at > 0
        view[at] ^= 1
    assert arena.reattach() == 1
    assert set(arena.rows(tcp=True)) == {flow(port) for port in range(10) if port != 4}
    assert arena.create(flow(4), "egress", 60, 100, State()) == 0
    assert arena.stats(tcp=True).count == 10


def test_arena_drops_the_second_entry_of_one_key(arena: CtDriver) -> None:
    """Two entries of one key cannot both be found, so only one is kept."""
    ffi, size = arena.ffi, arena.ffi.sizeof("struct ct_entry")
    first = ffi.buffer(arena.lib.ct_map_entry(arena.dp.ct.tcp, 0), size)
    ffi.buffer(arena.lib.ct_map_entry(arena.dp.ct.tcp, 1), size)[:] = first[:]
    assert arena.reattach() == 1
    assert arena.stats(tcp=True).count == 9
    assert set(arena.rows(tcp=True)) == {flow(port) for port in range(10) if port != 1}


def test_arena_refuses_what_is_none(arena: CtDriver) -> None:
    """Each refusal names what differs and what to do next."""
    fd = arena.fd
    size = os.fstat(fd).st_size
    assert "boot id is of another boot" in refusal(fd, bytes(16))
    cases = [
        ("magic", b"X", "does not begin with FWDARENA"),
        ("abi_version", b"\x63", "it has ABI version 99"),
        ("header_size", b"\x01", "this build has"),
        ("params.ct_tcp", b"\x01", "header is damaged"),
        ("params.boot_id", b"\x63", "header is damaged"),
        ("check", b"\x00\x00\x00\x00", "header is damaged"),
    ]
    for field, data, message in cases:
        good = os.pread(fd, len(data), header(field))
        poke(fd, header(field), data)
        assert message in refusal(fd), field
        assert "start with a new arena" in refusal(fd), field
        poke(fd, header(field), good)
    os.ftruncate(fd, size + 4096)
    assert f"it has {size + 4096} bytes, its capacities need {size}" in refusal(fd)
    os.ftruncate(fd, size)
    handle, torn, _ = attach(fd)
    assert handle
    assert torn == 0
    internal()[1].fwd_dp_close(handle)


def test_arena_refuses_files_too_short_and_dead_descriptors() -> None:
    """An empty file, a short one and a closed descriptor are told apart."""
    fd = os.memfd_create("fwd-test-short")
    assert "it has 0 bytes, less than its header" in refusal(fd)
    os.ftruncate(fd, 64)
    assert "it has 64 bytes, less than its header" in refusal(fd)
    os.ftruncate(fd, 1 << 16)
    assert "does not begin with FWDARENA" in refusal(fd)
    os.close(fd)
    assert "Bad file descriptor" in refusal(fd)


def test_arena_names_the_damaged_table(arena: CtDriver) -> None:
    """A table whose own header lies is refused by name."""
    ffi = arena.ffi
    base = int(ffi.cast("uintptr_t", arena.dp.arena))
    for name, table in (("ct_tcp", arena.dp.ct.tcp), ("ct_any", arena.dp.ct.any)):
        at = int(ffi.cast("uintptr_t", table)) - base + ffi.offsetof("struct ct_map", "top")
        good = os.pread(arena.fd, 4, at)
        poke(arena.fd, at, b"\xff" * 4)
        assert f"the {name} table is damaged; start with a new arena" in refusal(arena.fd)
        poke(arena.fd, at, good)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=20))
@settings(max_examples=150, deadline=None)
def test_arena_survives_any_damage(damage: list[tuple[float, int]]) -> None:
    """With any bytes overwritten attach refuses, or hands out tables that work within bounds."""
    ct = CtDriver(16, Limits())
    for port in range(20):
        ct.create(flow(port, 17 if port & 1 else 6), "egress", 60, 100, State())
    size = os.fstat(ct.fd).st_size
    for where, value in damage:
        poke(ct.fd, min(int(where * size), size - 1), bytes([value]))
    handle, torn, message = attach(ct.fd)
    if not handle:
        assert message.startswith("attaching the arena: ")
    else:
        ct.lib.fwd_dp_close(ct.dp)
        ct.dp = handle
        assert torn <= len(damage)
        _exercise(ct)
    ct.close()


def _exercise(ct: CtDriver) -> None:
    """Use every table once; ASan says whether that stayed inside."""
    for port in range(20):
        ct.lookup(_packet(port), "egress", "bidir", 101)
        ct.create(flow(port + 100), "egress", 60, 200, State())
    for tcp in (True, False):
        assert len(ct.rows(tcp=tcp)) == ct.stats(tcp=tcp).count
    ct.walk(ct.lib.fwd_ct_sweep, 1 << 31)
    ffi, lib, cursor = ct.ffi, ct.lib, ct.ffi.new("uint64_t *")
    for name in ("endpoint", "lxc", "ipcache", "policy", "peer"):
        rows = ffi.new(f"struct fwd_{name}_row[32]")
        for _ in range(64):
            assert getattr(lib, f"fwd_{name}_dump")(ct.dp, cursor, rows, 32) <= 32
            if cursor[0] == 0:
                break
        cursor[0] = 0
    lib.fwd_ipcache_lookup(ct.dp, ffi.new("struct fwd_addr *"), ffi.new("struct fwd_ipcache_row *"))
    lost = ffi.new("uint64_t *")
    assert lib.fwd_events_read(ct.dp, ffi.new("struct fwd_event[16]"), 16, lost) <= 16


def test_arena_outlives_a_writer_killed_at_any_moment() -> None:
    """SIGKILL in the middle of creates and sweeps: attach works, at most one entry is torn."""
    ct = CtDriver(512, Limits())
    for attempt in range(15):
        child = os.fork()
        if child == 0:
            _write_forever(ct)
        time.sleep(0.002 + attempt * 0.001)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert ct.reattach() <= 1
        rows = ct.rows(tcp=True, page=600)
        assert len(rows) == ct.stats(tcp=True).count
        for key in list(rows)[:20]:
            assert ct.lookup(_packet(key.sport), "egress", "forward", 101)[0] == 1
    ct.close()


def _write_forever(ct: CtDriver) -> None:
    port = 0
    try:
        while True:
            port = (port + 1) & 0x3FF
            ct.create(flow(port), "egress", 60, port, State())
            if port & 0xFF == 0:
                ct.walk(ct.lib.fwd_ct_sweep, port, budget=64)
    finally:
        os._exit(1)  # never back into the test session
