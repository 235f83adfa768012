"""What clients hear of a daemon whose start was refused, on a listener that stays the manager's."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from fwd.api.client import ApiError, Client
from fwd.api.refusal import answering
from fwd.config.load import ConfigError
from fwd.control.feeding import Feeding
from fwd.control.notify import Notifier
from fwd.control.refusal import Refusal
from fwd.control.revive import Revived
from fwd.control.store import Store
from fwd.datapath.errors import DatapathError

if TYPE_CHECKING:
    from collections.abc import Iterator

REASON = "n.yaml:1: frob: unknown key"


@pytest.fixture
def listener(tmp_path) -> Iterator[socket.socket]:
    """The one of fwd.socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "fwd.sock"))
        sock.listen()
        yield sock


def ask(sock: socket.socket, method: str, path: str) -> Any:
    """The answer to one client, or the text of its error."""
    with Client(sock.getsockname()) as client:
        try:
            return client.get(path) if method == "GET" else client.post(path)
        except ApiError as error:
            return str(error)


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (ConfigError(REASON), f"nothing was changed: {REASON}"),
        (DatapathError("no memory"), "the daemon ends: no memory"),
        ({"revision": 1}, {"revision": 1}),
    ],
)
def test_clients_hear_the_reason_and_a_reload_its_outcome(listener, outcome, answer):
    """Whatever is read or ordered gets the reason; a reload waits for the try it ordered."""

    async def main() -> None:
        refusal = Refusal(ConfigError(REASON), Feeding(Revived(Store()), Notifier()))
        async with answering(refusal, listener):
            for method, path in (("GET", "/v1/status"), ("GET", "/"), ("POST", "/v1/trace")):
                assert await asyncio.to_thread(ask, listener, method, path) == refusal.text
            order = asyncio.ensure_future(asyncio.to_thread(ask, listener, "POST", "/v1/reload"))
            assert await refusal.next()
            assert not order.done()
            if isinstance(outcome, dict):
                refusal.over(outcome)
            else:
                refusal.fail(outcome)
            assert await order == answer

    asyncio.run(main())
    with socket.socket(socket.AF_UNIX) as client:  # the daemon itself listens on it next
        client.connect(listener.getsockname())
        listener.settimeout(1)
        listener.accept()[0].close()


def test_without_a_listener_nobody_is_answered():
    """Where the socket would be, the node file says that is wrong."""

    async def main() -> None:
        refusal = Refusal(ConfigError(REASON), Feeding(Revived(Store()), Notifier()))
        async with answering(refusal):
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
