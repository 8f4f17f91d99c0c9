"""What the exit status of `blipmq` means, and what a failure says: what happened, and what to do.

0 is done. A script can tell apart what to repair (2), to wait for (3), to ask for (4), and to
expect (5, 6).
"""

from __future__ import annotations

from typing import Final

from blipmq.cli.api import ApiError, ApiUnreachable
from blipmq.errors import (
    AuthenticationFailed,
    BlipMQError,
    ConfigError,
    ConnectionLost,
    NotFound,
    NotPermitted,
    PublisherFailed,
    UnsupportedByBroker,
)
from blipmq.wal.scan import NoLog

FAILED: Final = 1
UNUSABLE: Final = 2
UNREACHABLE: Final = 3
NOT_PERMITTED: Final = 4
NOT_FOUND: Final = 5
NOTHING_CAME: Final = 6
INTERRUPTED: Final = 130

_HTTP: Final = {401: NOT_PERMITTED, 403: NOT_PERMITTED, 404: NOT_FOUND}


def status_of(error: BlipMQError) -> int:
    """The exit status of a command that ended with this error."""
    match error:
        case PublisherFailed():
            return status_of(error.failures[0][1]) if error.failures else FAILED
        case NoLog() | ConfigError():
            return UNUSABLE
        case ConnectionLost() | ApiUnreachable():
            return UNREACHABLE
        case AuthenticationFailed() | NotPermitted():
            return NOT_PERMITTED
        case NotFound():
            return NOT_FOUND
        case ApiError():
            return _HTTP.get(error.status, FAILED)
        case _:
            return FAILED


def advice(error: BlipMQError) -> str | None:
    """What whoever reads the error may do next, if that is not in its text."""
    match error:
        case ConnectionLost():
            return "is blipmqd running, and is --url (bind_addr and port of the daemon) right?"
        case ApiUnreachable():
            return "is blipmqd running, and is --api (its metrics_addr and metrics_port) right?"
        case AuthenticationFailed():
            return "give a key of allowed_api_keys: BLIPMQ_CLIENT_API_KEY or --api-key-file"
        case NotPermitted():
            return "topics that begin with $ are the broker's; dead letters: `blipmq dead retry`"
        case UnsupportedByBroker():
            return "update the broker, or leave that option out"
        case PublisherFailed():
            first = error.failures[0][1] if error.failures else None
            return None if first is None else advice(first)
        case ApiError(status=401):
            return "give an admin key: BLIPMQ_CLIENT_ADMIN_KEY or --admin-key-file"
        case ApiError(status=403):
            return "`blipmq keys new` makes a key for admin.allowed_keys"
        case _:
            return None
