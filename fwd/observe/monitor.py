"""The monitor: hands the datapath's events to whoever listens, and costs nothing otherwise.

Live only: no history is kept. The mask of the datapath is the union of what listeners want (drops
are always written: they are rare and never aggregated). Events are converted in short turns, so
that a flood of them never holds the loop; what is too much is lost, counted, and said.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from fwd.model.enums import Drop
from fwd.observe.events import EVENT_TYPES, event_record, lost_record
from fwd.observe.walk import policy_rule_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

    from fwd.datapath.binding import Datapath
    from fwd.datapath.packet import Event

__all__ = ["DEFAULT_TYPES", "MONITOR_TYPES", "MonitorHub", "Subscription", "monitor_types"]

MONITOR_TYPES: dict[str, int] = {"drop": 1, "trace": 2, "policy-verdict": 4, "step": 8}
"""Record type to its bit of ``Settings.monitor_mask``."""

DEFAULT_TYPES = frozenset({"drop", "trace", "policy-verdict"})

_ALIASES = {"verdict": "policy-verdict"}
_ALWAYS = MONITOR_TYPES["drop"]
_POLICY_DROPS = frozenset({Drop.POLICY_DENIED, Drop.POLICY_DENY})
_TURN = 32  # events converted before the loop gets its turn: about half a millisecond
_RING_READ = 4096  # events discarded at most when the first listener arrives


def monitor_types(names: Collection[str]) -> frozenset[str]:
    """Check event type names; none at all means the default ones.

    Raises:
        ValueError: for a name that is no event type.
    """
    types = frozenset(_ALIASES.get(name, name) for name in names)
    for name in sorted(types - MONITOR_TYPES.keys()):
        known = ", ".join(sorted(MONITOR_TYPES.keys() | _ALIASES.keys()))
        raise ValueError(f"{name!r} is no event type; use one of {known}")
    return types or DEFAULT_TYPES


class Subscription:
    """One listener: an async iterator of records, bounded, that ends with its hub."""

    def __init__(self, hub: MonitorHub, types: frozenset[str], capacity: int) -> None:
        self.types = types
        self._hub = hub
        self._capacity = capacity
        self._records: list[dict[str, Any]] = []
        self._lost: dict[str, int] = {}
        self._ready = asyncio.Event()
        self._open = True

    def offer(self, record: dict[str, Any]) -> None:
        """Queue a record, or count it as lost when the listener is too far behind."""
        if len(self._records) >= self._capacity:
            self.miss(1, "queue")
            return
        self._records.append(record)
        self._ready.set()

    def miss(self, count: int, where: str) -> None:
        """Count events this listener will not get; it is told with its next records."""
        self._lost[where] = self._lost.get(where, 0) + count
        self._ready.set()

    async def take(self, timeout_s: float | None = None) -> list[dict[str, Any]]:
        """Wait for records and take all that are queued.

        Returns:
            The records in order; none when ``timeout_s`` passed or the subscription has ended.
        """
        if not self._ready.is_set() and self._open:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._ready.wait()
            except TimeoutError:
                return []
        lost = [lost_record(count, where) for where, count in self._lost.items()]
        records, self._records, self._lost = self._records + lost, [], {}
        if self._open:
            self._ready.clear()
        return records

    @property
    def is_open(self) -> bool:
        """False once closed: by the listener, or by the hub at its end."""
        return self._open

    def close(self) -> None:
        """Stop listening. Idempotent; a waiting ``take`` returns."""
        if self._open:
            self._open = False
            self._ready.set()
            self._hub.forget(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Yield records until the subscription ends."""
        while self._open or self._records:
            for record in await self.take():
                yield record


class MonitorHub:
    """Drains the event ring for all listeners.

    Args:
        dp: the datapath whose ring is read; nobody else may read it.
        rule_of: the rule behind a verdict or policy drop, as JSON; None = no rule is known.
        ifname_of: name of a device by ifindex; None = unknown.
        poll_s: seconds between looks at the ring while somebody listens.
        capacity: records queued per listener before it loses some.
    """

    def __init__(
        self,
        dp: Datapath,
        rule_of: Callable[[Event], Mapping[str, Any] | None] = lambda _event: None,
        ifname_of: Callable[[int], str | None] = lambda _ifindex: None,
        *,
        poll_s: float = 0.02,
        capacity: int = 4096,
    ) -> None:
        self._dp = dp
        self._rule_of = rule_of
        self._ifname_of = ifname_of
        self._poll_s = poll_s
        self._capacity = capacity
        self._subscriptions: list[Subscription] = []
        self._task: asyncio.Task[None] | None = None
        self._ring_lost = 0
        self.lost = 0
        """Events that the ring overwrote while somebody listened."""

    @property
    def listeners(self) -> int:
        """How many subscriptions are open."""
        return len(self._subscriptions)

    def subscribe(self, types: Collection[str] = ()) -> Subscription:
        """Start listening to ``types`` (none = the default ones); needs a running loop.

        Raises:
            ValueError: for a name that is no event type.
        """
        wanted = monitor_types(types)
        if not self._subscriptions:
            self._discard()
        subscription = Subscription(self, wanted, self._capacity)
        self._subscriptions.append(subscription)
        self.refresh_mask()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._poll(), name="fwd-monitor")
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Drop a closed subscription; the last one stops the polling."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self.refresh_mask()
        if not self._subscriptions and self._task is not None:
            self._task.cancel()
            self._task = None

    def refresh_mask(self) -> None:
        """Write what listeners want into the settings, which a reload leaves alone."""
        mask = _ALWAYS
        for subscription in self._subscriptions:
            for name in subscription.types:
                mask |= MONITOR_TYPES[name]
        settings = self._dp.settings
        if settings.monitor_mask != mask:
            self._dp.set_settings(replace(settings, monitor_mask=mask))

    def drain(self, limit: int = _TURN) -> int:
        """Hand out up to ``limit`` events that are in the ring now.

        Returns:
            How many were read.
        """
        events, lost_total = self._dp.events(limit)
        lost, self._ring_lost = lost_total - self._ring_lost, lost_total
        self.lost += lost
        for event in events:
            self._publish(event)
        if lost:
            for subscription in self._subscriptions:
                subscription.miss(lost, "ring")
        return len(events)

    def close(self) -> None:
        """End every subscription and the polling."""
        for subscription in tuple(self._subscriptions):
            subscription.close()

    def _discard(self) -> None:
        """Forget what the ring holds from the time before: the stream is live."""
        _, self._ring_lost = self._dp.events(_RING_READ)

    def _publish(self, event: Event) -> None:
        kind = EVENT_TYPES.get(event.type, "")
        listeners = [one for one in self._subscriptions if kind in one.types]
        if not listeners:
            return
        record = event_record(
            event,
            rule=self._rule(event, kind),
            ifname=self._ifname_of(event.ifindex) if event.ifindex else None,
        )
        for subscription in listeners:
            subscription.offer(record)

    def _rule(self, event: Event, kind: str) -> Mapping[str, Any] | None:
        """The rule behind what this event reports; traces and other drops report none."""
        if kind == "step":
            rule_id = policy_rule_id(event.step)
            return self._rule_of(replace(event, rule_id=rule_id)) if rule_id else None
        decided = kind == "policy-verdict" or (kind == "drop" and event.subtype in _POLICY_DROPS)
        return self._rule_of(event) if decided else None

    async def _poll(self) -> None:
        while self._subscriptions:
            full = self.drain() == _TURN
            await asyncio.sleep(0 if full else self._poll_s)
