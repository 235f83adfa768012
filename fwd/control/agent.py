"""The daemon: everything is composed here, and undone in reverse order.

``Agent`` owns the datapath, the pump, the pods' devices and the tasks around them. It decides
nothing itself: rows come from compile.py, devices from endpoints.py, packets from the pump.
What listens for clients is handed in by the caller, so that the API stands above this room.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwd.config.load import ConfigError, load_node_file
from fwd.control.apply import apply, diff
from fwd.control.compile import compile_world
from fwd.control.endpoints import EndpointDevices
from fwd.control.policy import DIRECTIONS, explain
from fwd.control.preflight import at_line, check_start, pod_mtu
from fwd.control.sweep import ConntrackSweep, purge
from fwd.datapath import slowpath
from fwd.datapath.binding import PORT_OVERLAY, Datapath
from fwd.datapath.errors import DatapathError
from fwd.datapath.pump import PumpLoop
from fwd.netlink.errors import LinkError
from fwd.netlink.tunnel import open_tunnel_socket
from fwd.observe.log import get_logger
from fwd.observe.monitor import MonitorHub

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager

    from fwd.config.schema import NodeFile
    from fwd.control.apply import ApplyReport
    from fwd.control.world import World
    from fwd.datapath.binding import Event, Punt
    from fwd.model.rows import Address

__all__ = ["Agent", "Serving", "run_agent"]

Serving = "Callable[[Agent], AbstractAsyncContextManager[None]]"
"""Listens for clients of an agent while the context is open (fwd/api/server.py: ``serving``)."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
