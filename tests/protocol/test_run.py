from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blipmq.protocol import encoder
from blipmq.protocol.decoder import Decoder
from blipmq.protocol.run import Run, stored_run
from tests.protocol.reference import Read, read, read_run
from tests.protocol.streams import correlation_ids, decode

TTL_5 = struct.pack(">BHQ", 1, 8, 5)
numbers = st.integers(1, 2**63)
body_sizes = st.one_of(
    st.integers(1, 200).flatmap(lambda n: st.just([5] * n)),
    st.lists(st.integers(0, 40), min_size=1, max_size=60),
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Run, list[Read]]:
    """A run as it was received, and its messages."""
    qos = draw(st.integers(0, 1))
    sizes = draw(body_sizes)
    first = draw(correlation_ids)
    frames = [
        encoder.publish(first ^ i, qos, b"topic", bytes([i % 256]) * size)
        for i, size in enumerate(sizes)
    ]
    run = decode(Decoder(), [b"".join(frames)])[0][0]
    assert isinstance(run, Run)
    return run, read(b"".join(frames))[0][: run.count]


@settings(deadline=None)
@given(runs(), numbers)
def test_stamping_puts_a_number_in_the_place_of_every_correlation_id_and_changes_no_other_byte(
    run_and_messages: tuple[Run, list[Read]], first: int
) -> None:
    run, messages = run_and_messages

    run.stamp(first)

    assert read_run(run) == [
        Read(m.type, first + i, m.payload, m.message) for i, m in enumerate(messages)
    ]
    assert (run.first, run.last) == (first, first + len(messages) - 1)


@settings(deadline=None)
@given(runs(), numbers)
def test_a_stamped_qos_1_run_still_knows_what_its_publisher_called_the_messages(
    run_and_messages: tuple[Run, list[Read]], first: int
) -> None:
    run, messages = run_and_messages

    run.stamp(first)

    called = [message.correlation_id for message in messages]
    numbered = list(range(first, first + len(messages)))
    assert list(run.correlation_ids()) == (called if run.qos else numbered)


@settings(deadline=None)
@given(runs())
def test_the_correlation_ids_of_a_run_that_is_not_stamped_are_those_in_its_bytes(
    run_and_messages: tuple[Run, list[Read]],
) -> None:
    run, messages = run_and_messages

    assert list(run.correlation_ids()) == [message.correlation_id for message in messages]


@settings(deadline=None)
@given(runs(), numbers)
def test_a_settled_run_has_forgotten_the_correlation_ids(
    run_and_messages: tuple[Run, list[Read]], first: int
) -> None:
    run, _ = run_and_messages
    run.stamp(first)

    run.settled()

    assert list(run.correlation_ids()) == list(range(first, first + run.count))


@pytest.mark.parametrize("size", [3, 300])
def test_stamping_one_run_leaves_its_neighbours_in_the_buffer_alone(size: int) -> None:
    before = [encoder.publish(i, 1, b"before", bytes(size)) for i in range(200)]
    middle = [encoder.publish(i, 1, b"middle", bytes(size)) for i in range(200)]
    after = [encoder.publish(i, 1, b"after", bytes(size)) for i in range(200)]
    buffer = bytearray(b"".join(before + middle + after))
    start, stride = len(b"".join(before)), len(middle[0])
    run = Run(buffer, range(start, start + 200 * stride + 1, stride), b"middle", 1)

    run.stamp(1)

    assert buffer[:start] == b"".join(before)
    assert buffer[start + run.size :] == b"".join(after)


@settings(deadline=None)
@given(runs(), correlation_ids, st.data())
def test_an_answer_at_qos_0_is_the_message_with_the_qos_and_correlation_id_replaced(
    run_and_messages: tuple[Run, list[Read]], correlation_id: int, data: st.DataObject
) -> None:
    run, messages = run_and_messages
    index = data.draw(st.integers(0, run.count - 1))

    answer = b"".join(run.reply(index, correlation_id))

    payload = messages[index].payload
    assert answer == Read(3, correlation_id, b"\0" + payload[1:]).data


@settings(deadline=None)
@given(runs(), st.data())
def test_the_frames_of_some_messages_lie_end_to_end(
    run_and_messages: tuple[Run, list[Read]], data: st.DataObject
) -> None:
    run, messages = run_and_messages
    start = data.draw(st.integers(0, run.count - 1))
    stop = data.draw(st.integers(start, run.count))

    assert run.data(start, stop) == b"".join(m.data for m in messages[start:stop])
    assert run.data() == b"".join(m.data for m in messages)
    assert run.size == len(run.data())


@settings(deadline=None)
@given(runs(), numbers)
def test_a_stored_run_is_the_run_that_was_stored(
    run_and_messages: tuple[Run, list[Read]], first: int
) -> None:
    run, _ = run_and_messages
    run.stamp(first)

    stored = stored_run(run.topic, run.first, bytes(run.data()))

    assert read_run(stored) == read_run(run)
    assert (stored.first, stored.last, stored.qos) == (run.first, run.last, run.qos)


@pytest.mark.parametrize("properties", [None, b"", TTL_5], ids=["publish", "none", "ttl"])
@pytest.mark.parametrize("equal", [1, 4, 200])
def test_a_stored_run_goes_on_behind_frames_of_one_size(
    equal: int, properties: bytes | None
) -> None:
    bodies = [b"x" * 200] * equal + [b"shorter"]
    if properties is None:
        frames = [encoder.publish(i, 1, b"t", body) for i, body in enumerate(bodies)]
    else:
        frames = [encoder.message(i, 1, b"t", properties, body) for i, body in enumerate(bodies)]

    stored = stored_run(b"t", 0, b"".join(frames))

    assert [message.data for message in read_run(stored)] == frames


@pytest.mark.parametrize("cut", [1, 4, 13])
def test_a_stored_run_whose_last_frame_is_cut_is_refused(cut: int) -> None:
    data = encoder.publish(1, 1, b"t", b"one") + encoder.publish(2, 1, b"t", b"two")

    with pytest.raises((ValueError, struct.error)):
        stored_run(b"t", 1, data[:-cut])
