"""BlipMQ, a durable publish/subscribe broker: the public names of its client library.

async with blipmq.open_client("blipmq://127.0.0.1:5555", api_key="dev-key-1") as client:
    await client.publish("demo", b"hello", qos=1)
    async with client.subscribe("demo", qos=1) as messages:
        async for message in messages:
            await message.accept()
"""

from __future__ import annotations

from blipmq.client.client import Client, connect_stream, open_client
from blipmq.client.message import Message
from blipmq.client.refusals import Refusals
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
    PublishFailed,
    Refused,
    TooLarge,
    Unavailable,
    UnsupportedVersion,
)

__all__ = [
    "open_client",
    "connect_stream",
    "Client",
    "Subscription",
    "Message",
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
]
