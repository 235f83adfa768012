"""The datapath library as Python objects; the only importer of the extension.

Every ``Any`` of cffi stays in this room (binding.py and rows' converters): what leaves is typed.
Nothing here runs per packet in the daemon: the pump moves packets inside one C call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fwd.datapath import _fwd  # type: ignore[attr-defined]
from fwd.datapath import convert as to
from fwd.datapath import convert_packet as pkt_to
from fwd.datapath.errors import AbiMismatchError, AttachError, DatapathError
from fwd.datapath.packet import (
    CT_NONE,
    PORT_HOST,
    PORT_NETDEV,
    PORT_NONE,
    PORT_OVERLAY,
    Event,
    Outcome,
    Packet,
    Punt,
    Step,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fwd.model.rows import (
        Address,
        CtRow,
        EndpointRow,
        IpcacheRow,
        LxcRow,
        MetricRow,
        Network,
        Params,
        PeerRow,
        PolicyRow,
        Settings,
        TableStats,
    )

__all__ = [
    "CT_NONE",
    "PORT_HOST",
    "PORT_NETDEV",
    "PORT_NONE",
    "PORT_OVERLAY",
    "Datapath",
    "Event",
    "Outcome",
    "Packet",
    "Pump",
    "Punt",
    "Step",
]

ffi: Any = _fwd.ffi
lib: Any = _fwd.lib

_PAGE = 512
_TABLES = {
    "ct_tcp": lib.FWD_TABLE_CT_TCP,
    "ct_any": lib.FWD_TABLE_CT_ANY,
    "ipcache": lib.FWD_TABLE_IPCACHE,
    "endpoint": lib.FWD_TABLE_ENDPOINT,
    "lxc": lib.FWD_TABLE_LXC,
    "policy": lib.FWD_TABLE_POLICY,
    "peer": lib.FWD_TABLE_PEER,
    "frag": lib.FWD_TABLE_FRAG,
}

if lib.fwd_abi_version() != lib.FWD_ABI_VERSION:
    _message = "the datapath extension is of another ABI: build it again (make build)"
    raise AbiMismatchError(_message)


def _text(err: Any) -> str:
    return str(ffi.string(err.message).decode())


def _map(*, tcp: bool) -> int:
    return int(lib.FWD_MAP_CT_TCP if tcp else lib.FWD_MAP_CT_ANY)


class Datapath:
    """One arena and everything that can be asked of it. Not thread-safe: one loop owns it."""

    def __init__(self, handle: Any) -> None:
        """Take over a ``struct fwd_dp *``; use ``create`` or ``attach``."""
        self._dp = handle

    @classmethod
    def create(cls, params: Params, fd: int = -1) -> Datapath:
        """Lay out empty tables.

        Args:
            params: capacities in items, seed, boot id.
            fd: memfd that will hold them, -1 = memory of this process only.

        Raises:
            DatapathError: a capacity is out of range or memory cannot be had.
        """
        err = ffi.new("struct fwd_error *")
        handle = lib.fwd_dp_create(to.params_c(ffi, params), fd, err)
        if handle == ffi.NULL:
            raise DatapathError(_text(err))
        return cls(handle)

    @classmethod
    def attach(cls, fd: int, boot_id: bytes) -> tuple[Datapath, int]:
        """Take over an arena another process left in ``fd``.

        Returns:
            The datapath, and how many torn entries were dropped.

        Raises:
            AttachError: another ABI, boot, size, or damage beyond one torn entry.
        """
        err = ffi.new("struct fwd_error *")
        torn = ffi.new("uint32_t *")
        handle = lib.fwd_dp_attach(fd, boot_id, torn, err)
        if handle == ffi.NULL:
            raise AttachError(_text(err))
        return cls(handle), int(torn[0])

    def close(self) -> None:
        """Unmap the arena; a second call does nothing."""
        if self._dp is not None:
            lib.fwd_dp_close(self._dp)
            self._dp = None

    def __enter__(self) -> Datapath:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- settings ----

    @property
    def handle(self) -> Any:
        """The ``struct fwd_dp *``, for Pump and the C tests."""
        return self._dp

    @property
    def params(self) -> Params:
        """Capacities and seeds it was made with."""
        out = ffi.new("struct fwd_params *")
        lib.fwd_dp_params(self._dp, out)
        return to.params_py(ffi, out)

    @property
    def settings(self) -> Settings:
        """Lifetimes, features, monitor mask now in force."""
        out = ffi.new("struct fwd_settings *")
        lib.fwd_dp_settings_get(self._dp, out)
        return to.settings_py(ffi, out)

    def set_settings(self, settings: Settings) -> None:
        """Put others in force, from the next batch on."""
        lib.fwd_dp_settings_set(self._dp, to.settings_c(ffi, settings))

    @property
    def generation(self) -> int:
        """Control's revision of the config tables."""
        return int(lib.fwd_dp_generation(self._dp))

    @generation.setter
    def generation(self, value: int) -> None:
        lib.fwd_dp_generation_set(self._dp, value)

    # ---- packets ----

    def run(self, now_ns: int, packets: Sequence[Packet]) -> list[Outcome]:
        """Decide on packets one batch at a time, with every step told (replay and tests).

        Args:
            now_ns: monotonic clock, never smaller than in the call before.
            packets: frames in order.

        Returns:
            One outcome a packet, in order.
        """
        outcomes: list[Outcome] = []
        for start in range(0, len(packets), int(lib.FWD_BATCH)):
            outcomes += self._run_batch(now_ns, packets[start : start + int(lib.FWD_BATCH)])
        return outcomes

    def _run_batch(self, now_ns: int, packets: Sequence[Packet]) -> list[Outcome]:
        count = len(packets)
        pkts = ffi.new("struct fwd_pkt[]", count)
        outs = ffi.new("struct fwd_out[]", count)
        steps = ffi.new("struct fwd_step[]", count * int(lib.FWD_MAX_STEPS))
        buffers = [pkt_to.packet_fill(ffi, lib, pkts[i], packets[i]) for i in range(count)]
        for i in range(count):
            outs[i].steps = steps + i * int(lib.FWD_MAX_STEPS)
        taken = lib.fwd_dp_run(self._dp, now_ns, pkts, count, outs, count)
        if taken != count:
            message = f"the datapath took {taken} of {count} packets"
            raise DatapathError(message)
        for i in range(count):
            lib.fwd_pkt_finish_csum(pkts + i)
        outcomes = [pkt_to.outcome_py(ffi, lib, pkts[i], outs[i]) for i in range(count)]
        del buffers
        return outcomes

    # ---- tables ----

    def _upsert(self, function: Callable[..., int], row: Any) -> None:
        err = ffi.new("struct fwd_error *")
        if function(self._dp, row, err) != 0:
            raise DatapathError(_text(err))

    def _dump(self, function: Callable[..., int], kind: str, *args: int) -> Iterator[Any]:
        cursor = ffi.new("uint64_t *")
        rows = ffi.new(f"struct {kind}[]", _PAGE)
        while True:
            count = function(self._dp, *args, cursor, rows, _PAGE)
            for i in range(count):
                yield rows[i]
            if cursor[0] == 0:
                return

    def endpoint_upsert(self, row: EndpointRow) -> None:
        """Add or replace a local endpoint; DatapathError when the table is full."""
        self._upsert(lib.fwd_endpoint_upsert, to.endpoint_c(ffi, row))

    def endpoint_delete(self, lxc_id: int) -> bool:
        """Forget a local endpoint; False = there was none."""
        return bool(lib.fwd_endpoint_delete(self._dp, lxc_id))

    def endpoints(self) -> Iterator[EndpointRow]:
        """All local endpoints."""
        return (
            to.endpoint_py(ffi, r) for r in self._dump(lib.fwd_endpoint_dump, "fwd_endpoint_row")
        )

    def lxc_upsert(self, row: LxcRow) -> None:
        """Add or replace a local address; DatapathError when the table is full."""
        self._upsert(lib.fwd_lxc_upsert, to.lxc_c(ffi, lib, row))

    def lxc_delete(self, addr: Address) -> bool:
        """Forget a local address; False = there was none."""
        return bool(lib.fwd_lxc_delete(self._dp, to.addr_c(ffi, addr)))

    def lxcs(self) -> Iterator[LxcRow]:
        """All local addresses."""
        return (to.lxc_py(lib, ffi, r) for r in self._dump(lib.fwd_lxc_dump, "fwd_lxc_row"))

    def ipcache_upsert(self, row: IpcacheRow) -> None:
        """Add or replace a prefix; DatapathError when the table is full."""
        self._upsert(lib.fwd_ipcache_upsert, to.ipcache_c(ffi, lib, row))

    def ipcache_delete(self, prefix: Network) -> bool:
        """Forget a prefix; False = there was none."""
        return bool(lib.fwd_ipcache_delete(self._dp, to.ipcache_key_c(ffi, prefix)))

    def ipcache_lookup(self, addr: Address) -> IpcacheRow | None:
        """The longest prefix that holds ``addr``, None = a miss (world)."""
        row = ffi.new("struct fwd_ipcache_row *")
        found = lib.fwd_ipcache_lookup(self._dp, to.addr_c(ffi, addr), row)
        return to.ipcache_py(lib, ffi, row) if found else None

    def ipcache_page(self, cursor: int, limit: int) -> tuple[list[IpcacheRow], int]:
        """At most ``limit`` prefixes from ``cursor`` on (0 = start); next cursor 0 = the end."""
        position = ffi.new("uint64_t *", cursor)
        rows = ffi.new("struct fwd_ipcache_row[]", limit)
        count = lib.fwd_ipcache_dump(self._dp, position, rows, limit)
        return [to.ipcache_py(lib, ffi, rows[i]) for i in range(count)], int(position[0])

    def ipcache(self) -> Iterator[IpcacheRow]:
        """All prefixes, in no order."""
        return (
            to.ipcache_py(lib, ffi, r) for r in self._dump(lib.fwd_ipcache_dump, "fwd_ipcache_row")
        )

    def policy_upsert(self, row: PolicyRow) -> None:
        """Add or replace a policy map entry; DatapathError when the table is full."""
        self._upsert(lib.fwd_policy_upsert, to.policy_c(ffi, row))

    def policy_delete(self, row: PolicyRow) -> bool:
        """Forget the entry with the key of ``row``; False = there was none."""
        return bool(lib.fwd_policy_delete(self._dp, to.policy_c(ffi, row)))

    def policy_lookup(
        self, lxc_id: int, direction: int, identity: int, proto: int, port: int
    ) -> tuple[int, PolicyRow | None, int]:
        """What policy says, without counting.

        Returns:
            (0 or drop reason, the entry that decided or None, match type of 8.4).
        """
        row = ffi.new("struct fwd_policy_row *")
        match = ffi.new("uint8_t *")
        drop = lib.fwd_policy_lookup(
            self._dp, lxc_id, direction, identity, proto, port, row, match
        )
        return int(drop), to.policy_py(row) if row.rule_id else None, int(match[0])

    def policies(self) -> Iterator[PolicyRow]:
        """All policy map entries of all endpoints."""
        return (to.policy_py(r) for r in self._dump(lib.fwd_policy_dump, "fwd_policy_row"))

    def peer_upsert(self, row: PeerRow) -> None:
        """Add or replace a remote node; DatapathError when the table is full."""
        self._upsert(lib.fwd_peer_upsert, to.peer_c(ffi, row))

    def peer_delete(self, ip: Address) -> bool:
        """Forget a remote node; False = there was none."""
        return bool(lib.fwd_peer_delete(self._dp, to.addr_c(ffi, ip)))

    def peers(self) -> Iterator[PeerRow]:
        """All remote nodes."""
        return (to.peer_py(ffi, r) for r in self._dump(lib.fwd_peer_dump, "fwd_peer_row"))

    # ---- conntrack ----

    def ct_page(self, *, tcp: bool, cursor: int, limit: int) -> tuple[list[CtRow], int]:
        """At most ``limit`` entries from ``cursor`` on (0 = start); next cursor 0 = the end."""
        position = ffi.new("uint64_t *", cursor)
        rows = ffi.new("struct fwd_ct_row[]", limit)
        count = lib.fwd_ct_dump(self._dp, _map(tcp=tcp), position, rows, limit)
        return [to.ct_py(ffi, rows[i]) for i in range(count)], int(position[0])

    def ct(self, *, tcp: bool) -> Iterator[CtRow]:
        """All entries of one map."""
        rows = self._dump(lib.fwd_ct_dump, "fwd_ct_row", _map(tcp=tcp))
        return (to.ct_py(ffi, r) for r in rows)

    def ct_sweep(self, *, tcp: bool, now_s: int, cursor: int, budget: int) -> tuple[int, int]:
        """Look at ``budget`` entries and delete the expired: (deleted, next cursor, 0 = end)."""
        position = ffi.new("uint64_t *", cursor)
        deleted = lib.fwd_ct_sweep(self._dp, _map(tcp=tcp), now_s, position, budget)
        return int(deleted), int(position[0])

    def ct_purge(self, *, tcp: bool, addr: Address, cursor: int, budget: int) -> tuple[int, int]:
        """The same walk, deleting entries with ``addr`` on either side."""
        position = ffi.new("uint64_t *", cursor)
        deleted = lib.fwd_ct_purge_addr(
            self._dp, _map(tcp=tcp), to.addr_c(ffi, addr), position, budget
        )
        return int(deleted), int(position[0])

    # ---- counters and events ----

    def metrics(self) -> list[MetricRow]:
        """All (reason, direction) pairs that counted something."""
        return [
            to.metric_py(r) for r in self._dump(lib.fwd_metrics_dump, "fwd_metric_row")
        ]

    def stats(self, table: str) -> TableStats:
        """Capacity and use of ``table``: one of ct_tcp, ct_any, ipcache, endpoint, lxc, policy,
        peer, frag; KeyError for another name."""
        out = ffi.new("struct fwd_table_stats *")
        lib.fwd_table_stats(self._dp, _TABLES[table], out)
        return to.stats_py(out)

    def events(self, limit: int = 256) -> tuple[list[Event], int]:
        """Drain up to ``limit`` events: (events in order, events lost since the start)."""
        rows = ffi.new("struct fwd_event[]", limit)
        lost = ffi.new("uint64_t *")
        count = lib.fwd_events_read(self._dp, rows, limit, lost)
        return [pkt_to.event_py(ffi, rows[i]) for i in range(count)], int(lost[0])


class Pump:
    """The I/O room: one epoll set with the TAPs and the tunnel socket, driven from outside."""

    def __init__(self, dp: Datapath) -> None:
        """Make the epoll set; DatapathError when the kernel refuses."""
        err = ffi.new("struct fwd_error *")
        self._pump = lib.fwd_pump_new(dp.handle, err)
        if self._pump == ffi.NULL:
            raise DatapathError(_text(err))
        self._punts = ffi.new("struct fwd_punt[]", 16)
        self._ports = ffi.new("uint32_t[]", 64)

    @property
    def epoll_fd(self) -> int:
        """What asyncio watches; readable when any TAP or the socket is."""
        return int(lib.fwd_pump_epoll_fd(self._pump))

    def add_tap(self, port: int, fd: int, vnet_hdr_size: int) -> None:
        """Watch a TAP; the descriptor stays the caller's. DatapathError says why not."""
        err = ffi.new("struct fwd_error *")
        if lib.fwd_pump_add_tap(self._pump, port, fd, vnet_hdr_size, err) != 0:
            raise DatapathError(_text(err))

    def add_udp(self, fd: int) -> None:
        """Watch the tunnel socket; the descriptor stays the caller's."""
        err = ffi.new("struct fwd_error *")
        if lib.fwd_pump_add_udp(self._pump, fd, err) != 0:
            raise DatapathError(_text(err))

    def remove(self, port: int) -> None:
        """Stop watching a port; unknown ports are no error."""
        lib.fwd_pump_remove(self._pump, port)

    def run(self, budget_ns: int, linger_ns: int) -> int:
        """Move packets for at most ``budget_ns``; returns how many. The GIL is free meanwhile."""
        return int(lib.fwd_pump_run(self._pump, budget_ns, linger_ns))

    def write(self, port: int, frame: bytes) -> None:
        """Write one slow-path frame to a TAP port; OSError with the kernel's reason."""
        result = int(lib.fwd_pump_write(self._pump, port, frame, len(frame)))
        if result < 0:
            raise OSError(-result, f"writing a slow-path frame to port {port}")

    def punts(self) -> list[Punt]:
        """Frames the slow path is asked to answer, oldest first."""
        punts: list[Punt] = []
        while count := int(lib.fwd_pump_punts(self._pump, self._punts, 16)):
            punts += [pkt_to.punt_py(ffi, self._punts[i]) for i in range(count)]
        return punts

    def gone(self) -> list[int]:
        """Ports whose device vanished since the last call."""
        count = int(lib.fwd_pump_gone(self._pump, self._ports, 64))
        return [int(self._ports[i]) for i in range(count)]

    def stats(self) -> dict[str, int]:
        """Counters of struct fwd_pump_stats by name."""
        out = ffi.new("struct fwd_pump_stats *")
        lib.fwd_pump_stats_get(self._pump, out)
        fields = ffi.typeof("struct fwd_pump_stats").fields
        return {name: int(getattr(out, name)) for name, _ in fields}

    def close(self) -> None:
        """Free the epoll set and buffers; a second call does nothing."""
        if self._pump is not None:
            lib.fwd_pump_free(self._pump)
            self._pump = None
