from __future__ import annotations

import pytest

from blipmq.client.url import Address, parse


@pytest.mark.parametrize(
    ("url", "address", "shown"),
    [
        ("blipmq://127.0.0.1:5555", Address("127.0.0.1", 5555), "127.0.0.1:5555"),
        ("blipmq://broker.example", Address("broker.example", 5555), "broker.example:5555"),
        ("blipmq://broker.example:1/", Address("broker.example", 1), "broker.example:1"),
        ("blipmq://[::1]:77", Address("::1", 77), "[::1]:77"),
        ("blipmq://[fe80::1%eth0]", Address("fe80::1%eth0", 5555), "[fe80::1%eth0]:5555"),
        ("blipmq://my_broker", Address("my_broker", 5555), "my_broker:5555"),
        (
            "blipmq://b\u00fccher.example",
            Address("b\u00fccher.example", 5555),
            "b\u00fccher.example:5555",
        ),
    ],
)
def test_a_broker_url_names_host_and_port(url: str, address: Address, shown: str) -> None:
    assert parse(url) == address
    assert str(address) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:5555",
        "blipmq:",
        "blipmq://",
        "blipmq://:5555",
        "blipmq://host:port",
        "blipmq://host:0",
        "blipmq://host:65536",
        "blipmq://host/topic",
        "blipmq://host?x=1",
        "blipmq://key@host",
        "blipmq://[::1",
        "blipmq://a..b:1",
        "blipmq://" + "a" * 64,
        "blipmq://a\udc80",
        "blipmq://h h:1",
        "blipmq://h\nh:1",
        "blipmq://\0:1",
    ],
)
def test_any_other_url_is_refused_with_what_is_expected(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected blipmq://HOST\[:PORT\]"):
        parse(url)


@pytest.mark.parametrize("url", ["http://host", "amqp://host:5555"])
def test_an_unsupported_scheme_is_refused_with_those_that_are_supported(url: str) -> None:
    with pytest.raises(ValueError, match="supported: blipmq://, blipmqs://, ws://, wss://"):
        parse(url)


@pytest.mark.parametrize(
    ("url", "port", "encrypted", "websocket", "resource"),
    [
        ("blipmqs://host", 5556, True, False, "/"),
        ("blipmqs://host:5555/", 5555, True, False, "/"),
        ("ws://host", 80, False, True, "/"),
        ("wss://host/broker?x=1", 443, True, True, "/broker?x=1"),
    ],
)
def test_other_schemes_say_how_to_get_there(
    url: str, port: int, encrypted: bool, websocket: bool, resource: str
) -> None:
    address = parse(url)
    assert (address.port, address.encrypted) == (port, encrypted)
    assert (address.websocket, address.resource) == (websocket, resource)
