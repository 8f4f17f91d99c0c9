"""Parked subscriptions: those of version 1 at QoS 1 whose connection has ended."""

from __future__ import annotations

from collections import OrderedDict

import attrs

from blipmq.broker.stats import Stats
from blipmq.broker.subscription import Subscription


@attrs.define(eq=False)
class Parking:
    """They wait, each for `expiry_seconds`, for their owner to subscribe to their topic again."""

    stats: Stats
    expiry_seconds: float
    _all: OrderedDict[Subscription, None] = attrs.Factory(OrderedDict)
    """The one that was parked first is first, and so is its end."""
    _by_key: dict[tuple[str, bytes], OrderedDict[Subscription, None]] = attrs.Factory(dict)

    def park(self, subscription: Subscription, now: float) -> None:
        """Its connection has ended, or the broker has just started."""
        subscription.session = None
        subscription.parked_until = now + self.expiry_seconds
        self._all[subscription] = None
        key = subscription.owner, subscription.topic.name
        self._by_key.setdefault(key, OrderedDict())[subscription] = None
        self.stats.subscriptions_parked += 1

    def take_over(self, owner: str, topic: bytes) -> Subscription | None:
        """The one of this owner and topic that was parked first, parked no more; if any."""
        parked = self._by_key.get((owner, topic))
        return self.leave(next(iter(parked))) if parked else None

    def expire(self, now: float) -> Subscription | None:
        """One whose time has come, parked no more; if any."""
        ends = self.next_end
        return self.leave(next(iter(self._all))) if ends is not None and ends <= now else None

    @property
    def next_end(self) -> float | None:
        """When `expire` has something to give, if ever."""
        first = next(iter(self._all), None)
        return None if first is None else first.parked_until

    def leave(self, subscription: Subscription) -> Subscription:
        """Park it no more."""
        subscription.parked_until = None
        del self._all[subscription]
        key = subscription.owner, subscription.topic.name
        del self._by_key[key][subscription]
        if not self._by_key[key]:
            del self._by_key[key]
        self.stats.subscriptions_parked -= 1
        return subscription
