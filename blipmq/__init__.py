"""BlipMQ, a durable publish/subscribe broker: the public names of its client library.

async with blipmq.open_client("blipmq://127.0.0.1:5555", api_key="dev-key-1") as client:
    await client.publish("demo", b"hello")
    async with client.subscribe("demo", name="printer") as messages:
        async for message in messages:
            async with message:
                print(message.body)
"""

from __future__ import annotations

from blipmq.client.batch import Batch
from blipmq.client.client import Client, connect_stream, open_client
from blipmq.client.message import Message
from blipmq.client.outgoing import PublishOptions
from blipmq.client.publisher import Publisher
from blipmq.client.refusals import Refusals
from blipmq.client.states import State
from blipmq.client.subscription import Subscription
from blipmq.errors import (
    AuthenticationFailed,
    BadRequest,
    BlipMQError,
    ClientClosed,
    ClientError,
    ConnectionLost,
    LimitExceeded,
    NotFound,
    NotPermitted,
    PublisherFailed,
    PublishFailed,
    Refused,
    RequestTimeout,
    SubscriptionEnded,
    TooLarge,
    Unavailable,
    UnsupportedByBroker,
    UnsupportedVersion,
    WindowFull,
)

__all__ = [
    "open_client",
    "connect_stream",
    "Client",
    "Subscription",
    "Publisher",
    "PublishOptions",
    "Message",
    "Batch",
    "State",
    "Refusals",
    "BlipMQError",
    "Refused",
    "BadRequest",
    "AuthenticationFailed",
    "NotPermitted",
    "NotFound",
    "TooLarge",
    "UnsupportedVersion",
    "LimitExceeded",
    "PublishFailed",
    "Unavailable",
    "ClientError",
    "ConnectionLost",
    "ClientClosed",
    "UnsupportedByBroker",
    "WindowFull",
    "PublisherFailed",
    "SubscriptionEnded",
    "RequestTimeout",
]
