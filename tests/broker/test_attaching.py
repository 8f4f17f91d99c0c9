"""Version 2: ATTACH and DETACH, names and settings."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Limits
from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import AttachProperties, encode_attach_properties
from blipmq.protocol.frames import U16
from tests.broker.attached import Member
from tests.broker.world import World


def attach_frame(topic: bytes, qos: int, properties: AttachProperties, more: bytes = b"") -> bytes:
    return encoder.attach(7, topic, qos, encode_attach_properties(properties) + more)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (encoder.frame(0x14, 7, b""), "invalid ATTACH payload"),
        (encoder.frame(0x14, 7, U16.pack(9) + b"t\1\0\0"), "invalid ATTACH payload"),
        (encoder.frame(0x14, 7, U16.pack(1) + b"t\1\0\1"), "invalid ATTACH payload"),
        (encoder.frame(0x14, 7, U16.pack(1) + b"\xff\1\0\0"), "invalid ATTACH payload"),
        (encoder.attach(7, b"t", 1, b"\x20\0\0"), "invalid ATTACH payload"),
        (encoder.attach(7, b"", 1, b""), "empty topic"),
        (encoder.attach(7, b"t", 2, b""), "invalid QoS value"),
        (encoder.attach(7, b"t", 1, b"\x26\0\0"), "unknown property"),
        (attach_frame(b"t", 0, AttachProperties(name=b"n")), "a named subscription needs QoS 1"),
        (attach_frame(b"a.>.b", 1, AttachProperties(pattern=True)), "invalid pattern"),
    ],
)
def test_what_cannot_be_attached_to_is_refused(frame: bytes, text: str) -> None:
    member = Member(World.create())

    member.send(frame)

    assert member.refused == [(7, 400, text)]


def test_unknown_properties_from_64_up_are_ignored() -> None:
    member = Member(World.create())

    member.send(attach_frame(b"t", 1, AttachProperties(), b"\x40\0\1x"))

    assert 7 in member.answers


@pytest.mark.parametrize(
    ("payload", "code", "text"),
    [
        (b"", 400, "invalid DETACH payload"),
        (bytes(10), 400, "invalid DETACH payload"),
        (bytes(8) + b"\2", 400, "invalid DETACH payload"),
        (bytes(8) + b"\0", 404, "unknown subscription"),
    ],
)
def test_a_detach_that_cannot_be_is_refused(payload: bytes, code: int, text: str) -> None:
    member = Member(World.create())

    member.send(encoder.frame(0x15, 7, payload))

    assert member.refused == [(7, code, text)]


@pytest.mark.parametrize(
    "other",
    [
        AttachProperties(name=b"n", ack_wait_ms=2_000),
        AttachProperties(name=b"n", max_attempts=4),
        AttachProperties(name=b"n", ack_wait_ms=1_000, max_attempts=0),
    ],
)
def test_other_settings_than_those_that_there_are_are_refused(other: AttachProperties) -> None:
    world = World.create()
    Member(world).attach(b"t", name=b"n", ack_wait_ms=1_000, max_attempts=3)
    member = Member(world)

    member.send(attach_frame(b"t", 1, other))

    assert member.refused == [(7, 400, "subscription exists with other settings")]


def test_settings_that_are_not_said_are_as_they_are() -> None:
    world = World.create()
    Member(world).attach(b"t", name=b"n", ack_wait_ms=1_000, max_attempts=9)

    Member(world).attach(b"t", name=b"n")

    assert world.broker.stats.subscriptions == 1


def test_a_name_is_of_its_topic_and_not_of_its_pattern() -> None:
    world = World.create()
    member = Member(world)

    member.attach(b"t", name=b"n")
    member.attach(b"u", name=b"n")
    member.attach(b"t", name=b"n", pattern=True)

    assert world.broker.stats.subscriptions == 3


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(max_attachments_per_connection=1), "too many attachments"),
        (Limits(max_subscriptions=1), "too many subscriptions"),
        (Limits(max_patterns=1), "too many patterns"),
        (Limits(max_topics=1), "too many topics"),
    ],
)
def test_there_are_no_more_than_may_be(limits: Limits, text: str) -> None:
    member = Member(World.create(limits))
    patterns = limits.max_patterns == 1
    member.attach(b"t", pattern=patterns)

    member.send(attach_frame(b"u", 1, AttachProperties(pattern=patterns)))

    assert member.refused == [(7, 429, text)]


def test_properties_that_are_too_long_are_refused() -> None:
    member = Member(World.create(Limits(max_properties_bytes=100)))

    member.send(attach_frame(b"t", 1, AttachProperties(), b"\x40" + U16.pack(98) + bytes(98)))

    assert member.refused == [(7, 413, "properties too large")]


def test_an_unnamed_subscription_ends_with_its_attachment() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t")

    member.detach(id_)

    assert (world.broker.stats.subscriptions, world.broker.stats.topics) == (0, 0)


def test_a_named_subscription_outlives_its_members() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", name=b"n")
    member.detach(id_)
    Member(world).publish(b"t", b"a")

    member.attach(b"t", name=b"n")

    assert member.take() == [b"a"]


def test_the_other_members_are_told_that_a_subscription_was_deleted() -> None:
    world = World.create()
    one, other = Member(world), Member(world)
    id_, second = one.attach(b"t", name=b"n"), one.attach(b"t", name=b"n")
    third = other.attach(b"t", name=b"n")

    one.detach(id_, delete=True)
    other.receive()

    assert (one.ended, other.ended) == ([(second, "deleted")], [(third, "deleted")])
    assert world.broker.stats.subscriptions == 0


def test_what_ends_with_a_connection_holds_no_memory() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    member.attach(b"t")
    publisher.publish(b"t", b"a", b"b")
    member.take()

    member.disconnect()

    stats = world.broker.stats
    left = stats.memory_bytes, stats.inflight, stats.attachments
    assert left == (0, 0, 0)
