"""A start that was refused while packets move already: it waits, and tries again when told to.

A restarted daemon forwards with what the one before has left before it has read its node file. When
that is wrong there is nothing to gain from ending: the next daemon would do the same. So the old
rules hold on, the manager's status line says why, and a reload (SIGHUP, or an order over the API)
tries the start again. What the host lacks may come by itself, and is tried without an order, too.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, TypeAlias

from fwd.config.load import ConfigError
from fwd.control.feeding import Feeding
from fwd.control.preflight import UnmetError
from fwd.netlink.errors import LinkError
from fwd.observe.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from fwd.control.agent import Agent
    from fwd.control.notify import Notifier
    from fwd.control.revive import Revived

__all__ = ["Answering", "Refusal", "start_at_last"]

Answering: TypeAlias = "Callable[[Refusal], AbstractAsyncContextManager[None]]"
"""Answers clients while a refusal stands (``answering`` in fwd/api/refusal.py)."""

_UNMET_S = 30.0
"""How often it is looked whether the host has what it lacked."""


class Refusal:
    """Why a start was refused, and who wants it tried again.

    Args:
        error: what the start raised.
        feeding: shows the reason in the manager's status line.
    """

    error: ConfigError | LinkError

    def __init__(self, error: ConfigError | LinkError, feeding: Feeding) -> None:
        self._feeding = feeding
        self._wanted = asyncio.Event()
        self._orders: list[asyncio.Future[dict[str, Any]]] = []
        self._said = ""
        self.tell(error)

    @property
    def text(self) -> str:
        """The reason and what to do, in one line."""
        what = "node file" if self._is_final else "start"
        return (
            f"{what} refused, packets go on by the rules before; correct it, then "
            f"`systemctl reload fwd`: {' '.join(str(self.error).split())}"
        )

    def tell(self, error: ConfigError | LinkError) -> None:
        """Take note of a reason; the same one is not logged twice in a row."""
        self.error = error
        if self._said != str(error):
            self._said = str(error)
            get_logger().error("start refused, packets go on by the rules before",
                               error=self._said)  # fmt: skip
        self._feeding.waiting(self.text)
        self.fail(error)

    def fail(self, error: Exception) -> None:
        """Tell those who ordered a try what came of it."""
        for order in self._take_orders():
            order.set_exception(error)

    def want(self) -> None:
        """Have the start tried again."""
        self._wanted.set()

    async def obey(self) -> dict[str, Any]:
        """Have the start tried again and wait for what comes of it.

        Returns:
            As ``Agent.reload``.

        Raises:
            ConfigError, LinkError: it was refused again.
            DatapathError, OSError: it failed, and the daemon ends.
        """
        order: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._orders.append(order)
        self.want()
        return await order

    async def next(self) -> bool:
        """Wait until the start is to be tried again; tells whether somebody wants it."""
        try:
            async with asyncio.timeout(None if self._is_final else _UNMET_S):
                await self._wanted.wait()
        except TimeoutError:
            return False
        self._wanted.clear()
        return True

    def over(self, report: dict[str, Any]) -> None:
        """Tell everybody that the daemon has started."""
        for order in self._take_orders():
            order.set_result(report)

    def _take_orders(self) -> list[asyncio.Future[dict[str, Any]]]:
        orders, self._orders = self._orders, []
        return [one for one in orders if not one.done()]

    @property
    def _is_final(self) -> bool:
        """Whether nothing but another node file can help."""
        return not isinstance(self.error, UnmetError | LinkError)


async def start_at_last(
    agent: Agent, revived: Revived, notifier: Notifier, answering: Answering | None
) -> None:
    """Start a daemon; where packets move already, wait for a node file that it can start with.

    Args:
        agent: is started.
        revived: what moves packets meanwhile.
        notifier: the manager, which hears of tries that were ordered.
        answering: clients' place until then; None = they have none.

    Raises:
        ConfigError, LinkError: refused, and nothing is there that would forward.
        DatapathError, OSError: as ``Agent.start``.
    """
    try:
        await agent.start()
    except (ConfigError, LinkError) as error:
        if not revived.running:
            raise
        feeding = revived.feeding = revived.feeding or Feeding(revived, notifier)
        refusal = Refusal(error, feeding)
    else:
        return
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, refusal.want)
    if answering is None:
        await _try_until_started(agent, revived, notifier, refusal)
        return
    async with answering(refusal):
        await _try_until_started(agent, revived, notifier, refusal)


async def _try_until_started(
    agent: Agent, revived: Revived, notifier: Notifier, refusal: Refusal
) -> None:
    feeding = revived.feeding
    while True:
        wanted = await refusal.next()
        if feeding is not None:
            feeding.trying()
        try:
            if wanted:
                with notifier.reloading():
                    await agent.start()
            else:
                await agent.start()
        except (ConfigError, LinkError) as error:
            refusal.tell(error)
            if not revived.running:  # it came so far that the old tables are closed
                raise
        except Exception as error:
            refusal.fail(error)
            raise
        else:
            note = "the start that was refused is complete"
            refusal.over({"revision": agent.dp.generation, "notes": [note]})
            return
