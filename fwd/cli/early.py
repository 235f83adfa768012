"""`fwd run` after a restart: packets move before the command line, the API and the rest are loaded.

Loading those takes half a second of one core; forwarding with what the daemon before left needs a
tenth of it. So this comes first, and the rest is loaded in a thread beside the packets.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, NoReturn, cast

from fwd.control.feeding import Feeding
from fwd.control.listen_fds import take
from fwd.control.memory import use_one_arena
from fwd.control.notify import Notifier
from fwd.control.revive import Revived, revive
from fwd.control.store import Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    Order: TypeAlias = Callable[[Revived], Awaitable[int]]
    """Runs the daemon that a command line asks for; returns the exit code."""

__all__ = ["WAITING", "main", "run"]

WAITING: ContextVar[bool] = ContextVar("WAITING", default=False)
"""The loop runs already: `run` shall return its order instead of carrying it out."""
_SWITCH_INTERVAL_S = 0.0005
"""As in fwd/control/run.py: loading must not keep packets waiting."""


def main(arguments: Sequence[str]) -> None:
    """Run a daemon; returns only if the command line is wrong, which is another's to say.

    Args:
        arguments: without the program's name.

    Raises:
        SystemExit: at the daemon's end.
    """
    import uvloop  # noqa: PLC0415 - the other commands do without

    status = uvloop.run(_run(list(arguments)))
    if status is not None:
        sys.exit(status)


async def run(order: Order) -> int:
    """Carry out an order with what there is to take over."""
    use_one_arena()
    revived = revive(take(), Store.from_environ())
    try:
        return await order(revived)
    finally:
        revived.close()


async def _run(arguments: list[str]) -> int | None:
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    revived = revive(take(), Store.from_environ())
    if revived.running:
        for number in (signal.SIGTERM, signal.SIGINT):  # until the daemon has its own
            asyncio.get_running_loop().add_signal_handler(number, _leave, revived)
        notifier = Notifier.from_environ()
        notifier.ready()  # from now on the watchdog runs, and what follows may take long
        revived.feeding = Feeding(revived, notifier)
    use_one_arena()
    try:
        order = await asyncio.to_thread(_read, arguments)
        return await order(revived) if callable(order) else order
    finally:
        revived.close()


def _leave(revived: Revived) -> NoReturn:
    """End between two packets, not in the middle of some; all there is lies in the store."""
    if revived.pump is not None:
        revived.pump.pause()
    os._exit(0)


def _read(arguments: list[str]) -> Order | int | None:
    """Load the command line and read it: an order, or the exit code of ``--help``.

    None = it is wrong.
    """
    from fwd.cli.main import app  # noqa: PLC0415

    token = WAITING.set(True)
    try:
        answer = app(args=arguments, prog_name="fwd", standalone_mode=False)
        return cast("Order | int", answer)
    except Exception:  # noqa: BLE001 - whatever it is, the command line says it again
        return None
    finally:
        WAITING.reset(token)
