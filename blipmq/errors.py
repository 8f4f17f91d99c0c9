"""Every exception of BlipMQ, in one tree. An error's class says what its catcher does.

- `Refused`: answer the request with a NACK of this code and message; the connection goes on.
  The broker raises it, the wire carries it, and the client raises it again from the NACK.
- `FramingError`: close this connection, and no other.
- `ConfigError`: do not start.
- `LogError`: stop the daemon; its log cannot be trusted or not be written.
- `ClientError`: raised by the client library for what happened on its own side of the wire.
"""

from __future__ import annotations


class BlipMQError(Exception):
    """The base of all errors that BlipMQ raises on purpose."""


class Refused(BlipMQError):
    """A request that is not carried out; `code` and `message` are what a NACK carries."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} (code {self.code})"


class BadRequest(Refused):
    """400: the request is malformed, or does not fit the state of its connection."""


class AuthenticationFailed(Refused):
    """401: the API key is unknown, or no key was given yet."""


class NotPermitted(Refused):
    """403: the API key may not do this."""


class NotFound(Refused):
    """404: the subscription or the delivery tag does not exist, or is settled already."""


class TooLarge(Refused):
    """413: the message is larger than the broker takes."""


class UnsupportedVersion(Refused):
    """426: the broker does not speak this protocol version."""


class LimitExceeded(Refused):
    """429: a limit that the operator set."""


class PublishFailed(Refused):
    """500: the log could not take the message; it was not published."""


class Unavailable(Refused):
    """503: not now: the broker is shutting down, or a backlog is full."""


_REFUSALS: dict[int, type[Refused]] = {
    400: BadRequest,
    401: AuthenticationFailed,
    403: NotPermitted,
    404: NotFound,
    413: TooLarge,
    426: UnsupportedVersion,
    429: LimitExceeded,
    500: PublishFailed,
    503: Unavailable,
}


def refusal(code: int, message: str) -> Refused:
    """The `Refused` of this code's own class; of `Refused` itself for a code without one."""
    return _REFUSALS.get(code, Refused)(code, message)


class FramingError(BlipMQError):
    """The bytes are no frame: what follows cannot be read, so the connection is closed."""


class ConfigError(BlipMQError):
    """The configuration cannot be used; the text names where, the key and what was expected."""


class LogError(BlipMQError):
    """The write-ahead log cannot be used any further."""


class CorruptLog(LogError):
    """The log has bytes that no crash leaves behind. The text names the file and the offset."""


class ClientError(BlipMQError):
    """The base of what the client library raises for its own side of the wire."""


class ConnectionLost(ClientError):
    """The connection to the broker ended. What was not answered may or may not have happened."""


class ClientClosed(ClientError):
    """The client, subscription or message was used after its `async with` block ended."""


class UnsupportedByBroker(ClientError):
    """The connected broker speaks a protocol version without this `feature`."""

    def __init__(self, feature: str, version: int) -> None:
        super().__init__(feature, version)
        self.feature = feature
        self.version = version

    def __str__(self) -> str:
        return f"{self.feature}: not on protocol version {self.version}, which this broker speaks"


class WindowFull(ClientError):
    """Not sent: the window is full, and the caller does not wait or the connection is down."""


class PublisherFailed(ClientError):
    """Messages of a publisher that were not published, or of which it is not known.

    `count` says how many. `failures` has the first of them: (number of the message, counted from
    0 in the order of sending, and its error).
    """

    def __init__(self, count: int, failures: tuple[tuple[int, BlipMQError], ...]) -> None:
        super().__init__(count, failures)
        self.count = count
        self.failures = failures

    def __str__(self) -> str:
        number, error = self.failures[0]
        return (
            f"{self.count} messages were not confirmed; the first one is number {number}: {error}"
        )


class SubscriptionEnded(ClientError):
    """The broker has ended the subscription; the text is its reason."""


class RequestTimeout(ClientError, TimeoutError):
    """No reply has come in time. The request may or may not have been carried out."""
