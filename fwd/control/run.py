"""The life of a daemon process: from its start to the signal that ends it."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from fwd.config.load import ConfigError
from fwd.control.agent import Agent
from fwd.control.memory import freeze, thaw
from fwd.control.notify import Notifier
from fwd.control.refusal import start_at_last
from fwd.control.revive import Revived
from fwd.control.store import Store
from fwd.datapath.errors import DatapathError
from fwd.observe.log import get_logger

if TYPE_CHECKING:
    from pathlib import Path

    from fwd.control.agent import Serving
    from fwd.control.refusal import Answering

__all__ = ["run_agent"]

_SWITCH_INTERVAL_S = 0.0005
"""Longest time another thread may keep the GIL from the loop, and so from packets."""


async def run_agent(
    path: Path,
    serving: Serving,
    revived: Revived | None = None,
    answering: Answering | None = None,
) -> int:
    """Run a daemon until SIGTERM or SIGINT takes it down; SIGHUP reloads.

    Args:
        path: of the node file.
        serving: listens for clients once everything runs.
        revived: what a daemon before has left; with its tables, a start that is refused waits for
            a better node file instead of raising.
        answering: answers clients meanwhile.

    Returns:
        The exit code, 0: an orderly end.

    Raises:
        ConfigError: the node file is at fault.
        LinkError, DatapathError, OSError: the host is; as ``Agent.start``.
    """
    loop = asyncio.get_running_loop()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    notifier = Notifier.from_environ()
    revived = revived or Revived(Store())
    agent = Agent(path, serving, notifier, revived)
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # too early: the file is being read
    try:
        return await _run(agent, ending, notifier, revived, answering)
    finally:
        thaw()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _run(
    agent: Agent,
    ending: asyncio.Event,
    notifier: Notifier,
    revived: Revived,
    answering: Answering | None,
) -> int:
    start = asyncio.ensure_future(start_at_last(agent, revived, notifier, answering))
    end = asyncio.ensure_future(ending.wait())
    await asyncio.wait({start, end}, return_when=asyncio.FIRST_COMPLETED)
    if not start.done():
        start.cancel()
    try:
        await start
    except asyncio.CancelledError:
        if revived.pump is not None:
            revived.pump.pause()  # what it has not read waits for the next daemon
        return 0
    finally:
        if start.cancelled() or start.exception() is not None:
            end.cancel()
    if revived.feeding is not None:
        revived.feeding.stop()  # the agent feeds now
    freeze()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, lambda: agent.spawn(_reload(agent), "reload"))
    notifier.ready()  # not before a reload is listened for
    await end
    await agent.stop()
    return 0


async def _reload(agent: Agent) -> None:
    try:
        await agent.reload()
    except (ConfigError, DatapathError) as error:
        get_logger().error("reload refused, nothing was changed", error=str(error))
