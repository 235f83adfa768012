"""When a refused start is tried again, and who hears of it."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
import structlog

from fwd.config.load import ConfigError
from fwd.control.feeding import Feeding
from fwd.control.notify import Notifier
from fwd.control.preflight import UnmetError
from fwd.control.refusal import Refusal, start_at_last
from fwd.control.revive import Revived
from fwd.control.store import Store
from fwd.datapath.errors import DatapathError
from fwd.netlink.errors import LinkError


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (UnmetError("n.yaml:4: endpoint a: there is no namespace"), True),
        (LinkError("the door does not answer"), True),
        (ConfigError("n.yaml:1: frob: unknown key"), False),
    ],
)
def test_only_what_may_come_is_looked_for_again(monkeypatch, error, again):
    """A wrong file waits for an order, however long that takes."""
    monkeypatch.setattr("fwd.control.refusal._UNMET_S", 0.01)

    async def main() -> None:
        refusal = Refusal(error, Feeding(Revived(Store()), Notifier()))
        waiting = asyncio.ensure_future(refusal.next())
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert bool(done) is again
        refusal.want()
        assert await waiting is not again

    asyncio.run(main())


def test_every_order_hears_of_the_try_after_it():
    """Refused again, then started; a reason is logged once, in one line of the status."""

    async def main() -> None:
        error = ConfigError("n.yaml:1: frob:\n unknown key")
        refusal = Refusal(error, Feeding(Revived(Store()), Notifier()))
        orders = [asyncio.ensure_future(refusal.obey()) for _ in range(2)]
        assert await refusal.next()
        refusal.tell(error)
        for order in orders:
            with pytest.raises(ConfigError, match="frob"):
                await order
        last = asyncio.ensure_future(refusal.obey())
        assert await refusal.next()
        refusal.over({"revision": 1})
        assert await last == {"revision": 1}
        assert refusal.text.endswith("`systemctl reload fwd`: n.yaml:1: frob: unknown key")

    with structlog.testing.capture_logs() as logs:
        asyncio.run(main())
    assert [one["log_level"] for one in logs] == ["error"]


@pytest.mark.parametrize("error", [ConfigError("wrong"), LinkError("no rights")])
def test_start_with_nothing_that_forwards_is_not_waited_for(error):
    """The error goes to the command line at once."""

    async def start() -> None:
        raise error

    agent = SimpleNamespace(start=start)
    with pytest.raises(type(error)):
        asyncio.run(start_at_last(agent, Revived(Store()), Notifier(), None))


@pytest.mark.parametrize("last", [UnmetError("n.yaml:4: a: taken"), DatapathError("no memory")])
def test_try_that_lost_the_old_tables_is_the_last(last):
    """Whoever ordered it hears the reason, and the next daemon takes over what the store has."""
    revived = Revived(Store(), running=True)
    errors = [UnmetError("n.yaml:4: a: missing"), LinkError("no rights"), last]

    async def start() -> None:
        if len(errors) == 1:
            revived.close()
        raise errors.pop(0)

    async def main() -> None:
        seen, there = [], asyncio.Event()

        @contextlib.asynccontextmanager
        async def clients(refusal):
            seen.append(refusal)
            there.set()
            yield

        agent = SimpleNamespace(start=start)
        work = asyncio.ensure_future(start_at_last(agent, revived, Notifier(), clients))
        await there.wait()
        with pytest.raises(LinkError, match="no rights"):
            await seen[0].obey()
        for one in (seen[0].obey(), work):
            with pytest.raises(type(last), match=str(last)):
                await one

    asyncio.run(main())
    assert not errors
