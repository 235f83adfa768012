"""The datapath library as Python objects; the only importer of the extension.

Every ``Any`` of cffi stays in this room (here, tables.py, convert*.py): what leaves is typed.
Nothing here runs per packet in the daemon: the pump moves packets inside one C call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

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
from fwd.datapath.tables import Tables, error_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwd.model.rows import Params, Settings

__all__ = [
    "ABI_VERSION",
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


if lib.fwd_abi_version() != lib.FWD_ABI_VERSION:
    _message = "the datapath extension is of another ABI: build it again (make build)"
    raise AbiMismatchError(_message)

ABI_VERSION = int(lib.FWD_ABI_VERSION)
"""Of the layouts in csrc/abi.h."""


class Datapath(Tables):
    """One arena and everything that can be asked of it. Not thread-safe: one loop owns it."""

    _ffi = ffi
    _lib = lib

    def __init__(self, handle: Any) -> None:
        """Take over a ``struct fwd_dp *``; use ``create`` or ``attach``."""
        self._dp = handle
        self._lost = ffi.new("uint64_t *")  # fwd_events_read adds to it

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
            raise DatapathError(error_text(ffi, err))
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
            raise AttachError(error_text(ffi, err))
        return cls(handle), int(torn[0])

    def view(self, fd: int) -> Datapath:
        """Return the tables as they are now, copy on write: nothing run there changes them.

        Args:
            fd: the memfd this datapath was created with.

        Raises:
            DatapathError: it cannot be mapped.
        """
        err = ffi.new("struct fwd_error *")
        handle = lib.fwd_dp_view(self._dp, fd, err)
        if handle == ffi.NULL:
            raise DatapathError(error_text(ffi, err))
        return Datapath(handle)

    def close(self) -> None:
        """Unmap the arena; a second call does nothing."""
        if self._dp is not None:
            lib.fwd_dp_close(self._dp)
            self._dp = None

    def __enter__(self) -> Self:
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

    # ---- events ----

    def events(self, limit: int = 256) -> tuple[list[Event], int]:
        """Drain up to ``limit`` events: (events in order, events lost since the start)."""
        rows = ffi.new("struct fwd_event[]", limit)
        count = lib.fwd_events_read(self._dp, rows, limit, self._lost)
        return [pkt_to.event_py(ffi, rows[i]) for i in range(count)], int(self._lost[0])


class Pump:
    """The I/O room: one epoll set with the TAPs and the tunnel socket, driven from outside."""

    def __init__(self, dp: Datapath) -> None:
        """Make the epoll set; DatapathError when the kernel refuses."""
        err = ffi.new("struct fwd_error *")
        self._pump = lib.fwd_pump_new(dp.handle, err)
        if self._pump == ffi.NULL:
            raise DatapathError(error_text(ffi, err))
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
            raise DatapathError(error_text(ffi, err))

    def add_udp(self, fd: int) -> None:
        """Watch the tunnel socket; the descriptor stays the caller's."""
        err = ffi.new("struct fwd_error *")
        if lib.fwd_pump_add_udp(self._pump, fd, err) != 0:
            raise DatapathError(error_text(ffi, err))

    def set_offload(self, offload: int, segments_max: int) -> None:
        """Use these OFFLOAD_* from now on; trains have at most ``segments_max`` datagrams."""
        lib.fwd_pump_offload_set(self._pump, offload, segments_max)

    @property
    def offload(self) -> int:
        """OFFLOAD_* in use: what was set, less what the kernel kept refusing."""
        return int(lib.fwd_pump_offload_get(self._pump))

    def remove(self, port: int) -> None:
        """Stop watching a port; unknown ports are no error."""
        lib.fwd_pump_remove(self._pump, port)

    def run(self, budget_ns: int, linger_ns: int) -> int:
        """Move packets for at most ``budget_ns``; returns how many. The GIL is free meanwhile."""
        return int(lib.fwd_pump_run(self._pump, budget_ns, linger_ns))

    @property
    def eager(self) -> bool:
        """Whether the budget ended the last run in the midst of packets: run again soon."""
        return bool(lib.fwd_pump_eager(self._pump))

    def set_spin(self, spin_ns: int) -> None:
        """Wait busily for more after a little work, at most this long; 0 = never."""
        lib.fwd_pump_spin_set(self._pump, spin_ns)

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
