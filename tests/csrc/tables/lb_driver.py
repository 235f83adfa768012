"""The services of one arena with the inner functions of lb.c, spoken to in Python values."""

from __future__ import annotations

import os
from typing import Any

from fwd.model.rows import Address, BackendRow, ServiceRow
from tests.csrc.internal import internal
from tests.csrc.tables.region import address, fill_address

__all__ = ["Services"]

OTHER_CAP = 16
BOOT = bytes(range(16))


class Services:
    """An arena in a memfd, so that it can be attached again."""

    def __init__(self, services: int, slots: int, backends: int, affinity: int) -> None:
        self.ffi, self.lib = internal()
        self.fd = os.memfd_create("fwd-test-lb")
        fields = self.ffi.typeof("struct fwd_params").fields
        sizes = {name: OTHER_CAP for name, one in fields if one.type.cname == "uint32_t"}
        sizes |= {"services": services, "slots": slots, "backends": backends, "affinity": affinity}
        params = self.ffi.new("struct fwd_params *", sizes)
        params.hash_seed = 7
        params.boot_id = BOOT
        self.error = self.ffi.new("struct fwd_error *")
        self.dp = self.lib.fwd_dp_create(params, self.fd, self.error)
        assert self.dp != self.ffi.NULL, self.text()

    def close(self) -> None:
        """Unmap and forget."""
        self.lib.fwd_dp_close(self.dp)
        os.close(self.fd)

    def restart(self) -> None:
        """Let go of the arena and attach it again."""
        self.lib.fwd_dp_close(self.dp)
        torn = self.ffi.new("uint32_t *")
        self.dp = self.lib.fwd_dp_attach(self.fd, BOOT, torn, self.error)
        assert self.dp != self.ffi.NULL, self.text()

    def text(self) -> str:
        """The last error."""
        return self.ffi.string(self.error.message).decode()

    @property
    def lb(self) -> Any:
        """The ``struct lb *``."""
        return self.ffi.addressof(self.dp, "lb")

    def addr(self, value: Address) -> Any:
        """An address in C."""
        out = self.ffi.new("struct fwd_addr *")
        fill_address(out, value)
        return out

    def service_c(self, row: ServiceRow) -> Any:
        """A service row in C, without its slots."""
        names = ("port", "proto", "scope", "flags", "rev_nat_id", "affinity_timeout_s")
        out = self.ffi.new("struct fwd_service_row *", {name: getattr(row, name) for name in names})
        fill_address(out.frontend, row.frontend)
        return out

    def service_upsert(self, row: ServiceRow) -> bool:
        """False = refused, see ``text``."""
        ids = self.ffi.new("uint32_t[]", list(row.backends))
        service = self.service_c(row)
        return bool(
            self.lib.fwd_service_upsert(self.dp, service, ids, len(row.backends), self.error) == 0
        )

    def service_delete(self, row: ServiceRow) -> bool:
        """False = there was none."""
        return bool(self.lib.fwd_service_delete(self.dp, self.service_c(row)))

    def backend_upsert(self, row: BackendRow) -> bool:
        """False = refused, see ``text``."""
        names = ("id", "port", "proto", "state")
        out = self.ffi.new("struct fwd_backend_row *", {name: getattr(row, name) for name in names})
        fill_address(out.addr, row.addr)
        return bool(self.lib.fwd_backend_upsert(self.dp, out, self.error) == 0)

    def lookup(self, addr: Address, port: int, proto: int) -> Any:
        """A ``struct lb_service *``, None = no service."""
        be16 = (port & 255) << 8 | port >> 8
        found = self.lib.lb_lookup(self.lb, self.addr(addr), be16, proto)
        return None if found == self.ffi.NULL else found

    def select(self, service: Any, random: int) -> int | None:
        """The id of the backend a draw gives."""
        found = self.lib.lb_select(self.lb, service, random)
        return None if found == self.ffi.NULL else int(found.id)

    def affinity_get(self, service: Any, client: Address, now_s: int) -> int | None:
        """The id of the backend a client sticks to."""
        found = self.lib.lb_affinity_get(self.lb, service, self.addr(client), now_s)
        return None if found == self.ffi.NULL else int(found.id)

    def affinity_set(self, service: Any, client: Address, backend: int, now_s: int) -> None:
        """A client uses a backend."""
        self.lib.lb_affinity_set(self.lb, service, self.addr(client), backend, now_s)

    def rev_nat(self, number: int) -> tuple[Address, int] | None:
        """The frontend behind an id."""
        found = self.lib.lb_rev_nat_get(self.lb, number)
        if found == self.ffi.NULL:
            return None
        return address(found.addr), (found.port & 255) << 8 | found.port >> 8

    def count(self, table: str) -> int:
        """Rows in use of ``service``, ``slot``, ``backend`` or ``affinity``."""
        stats = self.ffi.new("struct fwd_table_stats *")
        number = getattr(self.lib, f"FWD_TABLE_{table.upper()}")
        self.lib.fwd_table_stats(self.dp, number, stats)
        return int(stats.count)
