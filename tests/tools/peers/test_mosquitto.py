"""MQTT as the load engine speaks it, byte for byte and without a server."""

from __future__ import annotations

import pytest

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.body import body
from tools.bench.load.wire import Refused
from tools.bench.load.work import Guarantee, Work
from tools.bench.peers.mosquitto import MqttPublisher, QosOneSubscriber, QosZeroSubscriber
from tools.bench.peers.mqtt_wire import PINGRESP, pubacks, publish

QOS_0 = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=1, sizes=(16,), topic_prefix="bench")
QOS_1 = Work(guarantee=Guarantee.AT_LEAST_ONCE, messages=1, sizes=(16,), topic_prefix="bench")


@pytest.mark.parametrize(
    ("size", "length"), [(0, b"\x03"), (124, b"\x7f"), (125, b"\x80\x01"), (16381, b"\x80\x80\x01")]
)
def test_a_length_takes_seven_bits_a_byte(size: int, length: bytes) -> None:
    assert publish(b"t", bytes(size)) == b"\x30" + length + b"\0\x01t" + bytes(size)


def test_a_publish_of_qos_1_has_a_packet_id() -> None:
    assert publish(b"t", b"x", 0x0102) == b"\x32\x06\0\x01t\x01\x02x"


@pytest.mark.parametrize(("qos", "packet_id"), [(0, 0), (1, 8)])
def test_packet_ids_are_places_in_the_ring(qos: int, packet_id: int) -> None:
    before, after = MqttPublisher(qos).enclose(7, "bench.0", 200)
    assert before + bytes(200) + after == publish(b"bench.0", bytes(200), packet_id)


def test_a_ring_longer_than_there_are_packet_ids_is_refused() -> None:
    with pytest.raises(Refused):
        MqttPublisher(1).enclose(65_535, "t", 16)


def test_acknowledgements_confirm_four_bytes_each() -> None:
    acks = bytes(pubacks(b"\0\0\x01", b"\x05\x06\0"))
    assert acks == b"\x40\x02\0\x05\x40\x02\0\x06\x40\x02\x01\0"
    assert MqttPublisher(1).confirmed(acks + b"\x40\x02") == (12, 3)


def test_anything_but_an_acknowledgement_is_refused() -> None:
    with pytest.raises(Refused):
        MqttPublisher(1).confirmed(b"\x40\x02\0\x05\xe0\x02\0\x06")


def test_messages_of_qos_0_are_counted_up_to_the_answer_to_the_barrier() -> None:
    subscriber, arrivals = QosZeroSubscriber(QOS_0, 0), Arrivals(QOS_0, 0)
    data = bytearray(publish(b"bench.0", body(16, 0, 0)) + PINGRESP)
    assert subscriber.take(data, 0, len(data), arrivals) == len(data)
    assert (arrivals.received, subscriber.settled) == (1, True)


def test_messages_of_qos_1_are_acknowledged_by_their_packet_ids() -> None:
    subscriber, arrivals = QosOneSubscriber(QOS_1, 0), Arrivals(QOS_1, 0)
    came = [publish(b"bench.0", body(16, 0, number), 0x0205 + number) for number in range(3)]
    data = bytearray(b"".join(came) + PINGRESP)
    assert subscriber.take(data, 0, len(data), arrivals) == len(data)
    assert subscriber.answer() == bytes(pubacks(b"\x02\x02\x02", b"\x05\x06\x07"))
    assert (arrivals.received, subscriber.settled, subscriber.answer()) == (3, True, b"")
