"""What values a setting may have, and cattrs hooks that see to it.

A hook raises `ValueError`, whose text says what was expected and what was found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeGuard, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from blipmq.config.settings import Config, tables
from blipmq.wal import policy
from blipmq.wal.policy import FsyncPolicy

_MAX_API_KEY_BYTES: Final = 65_535  # AUTH carries its length in 16 bits

_ADMIN_KEY_BYTES_MIN: Final = 16
_INTEGER_MAX: Final = 2**63 - 1
_INTEGER_BITS_SHOWN: Final = 64
"""Of longer ones nobody wants to see the digits, and Python does not show all that there are."""

_RANGES: Final[dict[str, tuple[int, int | None]]] = {
    "port": (0, 65_535),
    "metrics_port": (0, 65_535),
    "max_retries": (0, 65_535),
    "limits.max_auth_failures": (0, None),
    "retention.kept_messages": (0, None),
    "retention.session_expiry_ms": (0, None),
    "retention.message_ttl_ms": (0, None),
    "retention.settled_ms": (0, None),
    "retention.dedup_window_ms": (0, None),
    "retention.dedup_messages": (0, None),
    "retention.dedup_messages_total": (0, None),
    "ack_wait_ms": (1, 2**32 - 1),
    "limits.max_properties_bytes": (0, 65_535),
    "limits.key_lookahead": (0, None),
    "limits.slow_consumer_wait_ms": (0, None),
    "limits.heartbeat_ms": (0, None),
    "wal.segment_bytes": (4_096, None),
    "wal.reserve_bytes": (0, None),
    "wal.settle_flush_ms": (0, None),
    "shutdown.drain_timeout_ms": (0, None),
    "shutdown.linger_timeout_ms": (0, None),
    "metrics.max_labelled_subscriptions": (0, None),
    "tls.port": (0, 65_535),
    "websocket.port": (0, 65_535),
    "websocket.ping_ms": (0, None),
}
"""Smallest and largest value of the integers whose range is not 1 and up."""


def describe(value: object) -> str:
    """How an error shows `value`: in a few words, and tables and lists without what they hold."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > _INTEGER_BITS_SHOWN:
            return f"a number of {value.bit_length()} bits"
        case dict():
            return "a table"
        case list():
            return "a list"
        case _:
            return repr(value)


def _expected(expected: str, found: object) -> ValueError:
    return ValueError(f"expected {expected}, found {describe(found)}")


_MAY_BE_EMPTY: Final = frozenset({"wal_path", "tls.certificate", "tls.key"})

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@,]+", re.IGNORECASE)
"""As browsers send it: RFC 6454, section 6.2."""

Check = Callable[[object, object], object]
"""What cattrs calls for one setting: the raw value and the type, to the value or `ValueError`."""


def _check(key: str, its_type: type) -> Check:
    if get_origin(its_type) is Literal:
        return _one_of(get_args(its_type))
    if get_origin(its_type) is tuple:
        if key == "websocket.allowed_origins":
            return _origins
        if key == "admin.allowed_keys":
            return _keys(_ADMIN_KEY_BYTES_MIN, in_header=True)
        return _keys(1)
    if key == "websocket.path":
        return _path
    if key == "tracing.endpoint":
        return _http_url
    if its_type is float:
        return _ratio
    if its_type is int:
        return _integer(*_RANGES.get(key, (1, None)))
    if its_type is bool:
        return _boolean
    if its_type is FsyncPolicy:
        return _fsync_policy
    return _text if key in _MAY_BE_EMPTY else _text_not_empty


def _integer(least: int, most: int | None) -> Check:
    expected = f"an integer from {least} to {most}" if most else f"an integer, {least} or more"

    def check(value: object, _: object) -> int:
        # bool is a subclass of int, and no number to a user
        if isinstance(value, bool) or not isinstance(value, int):
            raise _expected(expected, value)
        if value > (most or _INTEGER_MAX):
            raise _expected(f"an integer from {least} to {most or _INTEGER_MAX}", value)
        if value < least:
            raise _expected(expected, value)
        return value

    return check


def _ratio(value: object, _: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _expected("a number from 0 to 1", value)
    return float(value)


def _http_url(value: object, _: object) -> str:
    if not isinstance(value, str) or not _is_http_url(value):
        raise _expected("a URL, such as http://127.0.0.1:4318/v1/traces", value)
    return value


def _is_http_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return bool(re.fullmatch(r"https?://[!-~]+", value) and parts.hostname and parts.port != 0)
    except ValueError:  # of a port that is none, or half of an address
        return False


def _one_of(choices: tuple[str, ...]) -> Check:
    def check(value: object, _: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _expected(f"one of {', '.join(choices)}", value)
        return value

    return check


def _boolean(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise _expected("true or false", value)
    return value


def _text(value: object, _: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise _expected("a string", value)
    if not _is_unicode(value):
        raise _expected("a string of UTF-8", value)
    return value


def _is_unicode(value: str) -> bool:
    """Whether it can be encoded: half a pair of surrogates cannot, nor what was no UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text_not_empty(value: object, its_type: object) -> str:
    if value == "":
        raise _expected("a string that is not empty", value)
    return _text(value, its_type)


def _fsync_policy(value: object, _: object) -> FsyncPolicy:
    if not isinstance(value, str):
        raise _expected(policy.EXPECTED, value)
    return FsyncPolicy.parse(value)


def _keys(least_bytes: int, *, in_header: bool = False) -> Check:
    expected = f"a list of strings of {least_bytes} to {_MAX_API_KEY_BYTES} bytes"

    def check(value: object, _: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ValueError(f"expected {expected}, found no list")
        for place, key in enumerate(value, start=1):
            if not _is_key(key, least_bytes):
                raise ValueError(f"expected {expected}, found another value at place {place}")
            if in_header and not _fits_header(key):
                raise ValueError(
                    "expected keys that fit into a header of HTTP, "
                    f"found a control character, or space at an end, at place {place}"
                )
        return tuple(value)

    return check


def _is_key(value: object, least_bytes: int) -> TypeGuard[str]:
    return (
        isinstance(value, str)
        and _is_unicode(value)
        and least_bytes <= len(value.encode()) <= _MAX_API_KEY_BYTES
    )


def _fits_header(value: str) -> bool:
    return value == value.strip() and not re.search(r"[\x00-\x1f\x7f]", value)


def _path(value: object, _: object) -> str:
    ascii_path = isinstance(value, str) and value.isascii() and value.isprintable()
    if not isinstance(value, str) or not ascii_path or not re.fullmatch(r"/[^ ?#]*", value):
        raise _expected("a path of a URL, such as /", value)
    return value


def _origins(value: object, _: object) -> tuple[str, ...]:
    expected = 'a list of origins such as https://example.com, without a path, or "*" for all'
    if not isinstance(value, list):
        raise _expected(expected, value)
    for origin in value:
        if origin not in ("*", "null") and not _is_origin(origin):
            raise _expected(expected, origin)
    return tuple(origin.lower() for origin in value)


def _is_origin(value: object) -> bool:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        return False
    return _ORIGIN.fullmatch(value) is not None


def contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """Settings that are right each by itself, but not together: the key, and what is wrong."""
    if config.tls.key and not config.tls.certificate:
        yield "tls.key", "expected tls.certificate to be set as well, found nothing"
    if config.websocket.tls and not config.tls.certificate:
        yield "websocket.tls", "expected tls.certificate to be set as well, found nothing"


def _table(name: str, table: type) -> Check:
    def check(value: object, _: object) -> object:
        if value is None:  # in YAML, a table whose settings are all commented out
            value = {}
        if not isinstance(value, dict):
            raise _expected(f"a table [{name}]", value)
        return CONVERTER.structure(value, table)

    return check


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)

    def register(table: type[attrs.AttrsInstance], prefix: str) -> None:
        inner = tables(table)
        overrides = {}
        for name, its_type in get_type_hints(table).items():
            if name in inner:
                register(its_type, f"{name}.")
                check = _table(name, its_type)
            else:
                check = _check(prefix + name, its_type)
            overrides[name] = override(struct_hook=check)
        # mypy takes the names of settings for options of cattrs, which begin with _cattrs
        hook = make_dict_structure_fn(table, converter, **overrides)  # type: ignore[arg-type]
        converter.register_structure_hook(table, hook)

    register(Config, "")
    return converter


CONVERTER: Final = _converter()
