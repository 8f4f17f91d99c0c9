"""How the clients of a simulated run come to their connections."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from blipmq.client.client import Client, _client, open_client
from blipmq.client.dial import Dialer, Dialled
from blipmq.client.url import Address, parse
from tests.simulation.host import KEY, PORT
from tests.simulation.network import Network
from tests.simulation.plan import Version
from tests.simulation.repeatable import chance

_CONNECT_SECONDS = 1.0
_CLOSE_SECONDS = 0.5


@attrs.define(eq=False)
class _OldDialer(Dialer):
    """Says version 1 at once."""

    async def dial(self, versions: tuple[int, ...] = (1,)) -> Dialled:
        return await super().dial((1,))


def client_of(
    network: Network, who: str, version: Version, life: int
) -> AbstractAsyncContextManager[Client]:
    """A client, which is the `life`-th that this user has."""
    entropy = chance("entropy", network.seed, who, life).randbytes
    url = f"blipmq://simulated:{PORT}"

    async def connect(address: Address) -> trio.abc.Stream:
        return await network.connect(who)

    def old_dialer(nursery: trio.Nursery) -> Dialer:
        return _OldDialer(
            [parse(url)], KEY.encode(), _CONNECT_SECONDS, None, connect, entropy, nursery
        )

    if version == 1:
        return _client(old_dialer, _CLOSE_SECONDS, None, math.inf, entropy)
    return open_client(
        url,
        api_key=KEY,
        connect_timeout_ms=round(_CONNECT_SECONDS * 1000),
        close_timeout_ms=round(_CLOSE_SECONDS * 1000),
        reconnect_timeout=math.inf,
        connect=connect,
        entropy=entropy,
    )
