"""What is told of topics, subscriptions and dead letters, page by page and in small steps."""

from __future__ import annotations

from blipmq.broker.limits import Limits
from blipmq.broker.overview import Amount, DeadLettersView, Page, SubscriptionView
from tests.broker.attached import Member
from tests.broker.logged import LoggedWorld
from tests.broker.test_operator import finished, reject
from tests.broker.world import World


def names(world: World, page: Page[str]) -> tuple[list[str], bool]:
    paged = finished(world.broker.overview.topic_page(page, world.now))
    return [row.topic for row in paged.rows], paged.more


def subscriptions(world: World, topic: str | None = None) -> list[SubscriptionView]:
    page = Page[int](100)
    return finished(world.broker.overview.subscription_page(page, world.now, topic)).rows


def test_topics_come_by_name_a_page_at_a_time() -> None:
    world = World.create()
    for topic in (b"b", b"\xc3\xa9", b"a", b"c"):
        Member(world).publish(topic, b"x")
    assert names(world, Page(2)) == (["a", "b"], True)
    assert names(world, Page(2, after="b")) == (["c", "é"], False)
    assert names(world, Page(2, after="é")) == ([], False)


def test_topics_come_by_backlog_kept_messages_included() -> None:
    world = World.create()
    Member(world).attach(b"a", prefetch=0)
    Member(world).publish(b"a", b"1", b"2")
    Member(world).publish(b"b", b"1", b"2", b"3")
    Member(world).publish(b"c", b"1")
    assert names(world, Page(2, by_backlog=True)) == (["b", "a"], True)


def test_topics_are_found_by_a_part_of_their_name() -> None:
    world = World.create()
    for topic in (b"orders.eu", b"orders.us", b"other"):
        Member(world).publish(topic, b"x")
    assert names(world, Page(10, contains="ders")) == (["orders.eu", "orders.us"], False)


def test_a_topic_tells_what_was_published_and_what_waits() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", name=b"n", prefetch=2)
    member.publish(b"t", b"a", b"b", b"c")
    member.receive()
    member.accept_all(id_)
    world.pass_time(3)
    (row,) = finished(world.broker.overview.topic_page(Page(10), world.now)).rows
    assert (row.topic, row.published, row.subscriptions, row.kept_messages) == ("t", 3, 1, 0)
    assert row.backlog.messages == 1
    assert row.backlog.oldest_seconds == 3


def test_ten_thousand_topics_are_looked_at_in_small_steps() -> None:
    world = World.create()
    for number in range(10_000):
        world.broker.overview.topics.make(b"t%d" % number)
    steps = world.broker.overview.topic_page(Page(3), 0.0)
    assert sum(1 for _ in steps) >= 5


def test_a_topic_that_goes_while_they_are_listed_does_no_harm() -> None:
    world = World.create()
    for number in range(3_000):
        world.broker.overview.topics.make(b"t%d" % number)
    steps = world.broker.overview.topic_page(Page(3), 0.0)
    next(steps)
    for topic in list(world.broker.overview.topics):
        world.broker.overview.topics.forget(topic)
    assert len(finished(steps).rows) == 3


def test_a_subscription_of_each_kind_tells_what_it_is() -> None:
    world = World.create()
    client, member = world.connect(), Member(world)
    client.subscribe(b"t")
    member.attach(b"t", qos=0)
    member.attach(b"t", name=b"n")
    member.attach(b"t.*", pattern=True)
    rows = subscriptions(world)
    assert [(row.kind, row.name, row.topic, row.pattern, row.qos) for row in rows] == [
        ("version 1", None, "t", False, 1),
        ("unnamed", None, "t", False, 0),
        ("named", "n", "t", False, 1),
        ("unnamed", None, "t.*", True, 1),
    ]
    assert all(row.owner == "owner" for row in rows)
    assert [row.kind for row in subscriptions(world, "t.*")] == ["unnamed"]
    client.disconnect()
    assert subscriptions(world)[0].parked


def test_a_subscription_whose_members_are_all_full_is_slow() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", name=b"n", prefetch=1)
    member.publish(b"t", b"a", b"b")
    member.receive()
    (row,) = subscriptions(world)
    assert (row.members, row.full_members, row.unsettled, row.slow) == (1, 1, 1, True)
    member.accept_all(id_)
    member.accept_all(id_)
    (row,) = subscriptions(world)
    assert (row.full_members, row.slow, row.backlog) == (0, False, Amount())


def test_the_age_of_what_is_on_the_disk_is_not_known() -> None:
    world = LoggedWorld.logged(Limits(window_bytes=200))
    member = Member(world)
    member.attach(b"t", name=b"n", prefetch=0)
    member.publish(b"t", *[bytes(100) for _ in range(20)])
    world.commit()
    (row,) = subscriptions(world)
    assert row.behind
    assert row.backlog.messages == 20
    assert row.backlog.oldest_seconds is None


def test_dead_letters_are_told_by_the_topic_that_they_came_from() -> None:
    world = LoggedWorld.logged()
    reject(world, b"a", b"b")
    world.pass_time(2)
    (row,) = finished(world.broker.overview.dead_letter_page(Page(10), world.now)).rows
    assert row == DeadLettersView("t", 0, Amount(2, row.backlog.bytes, 2.0))


def test_one_subscription_is_found_by_its_id() -> None:
    world = World.create()
    id_ = world.connect().subscribe(b"t")
    found = finished(world.broker.overview.subscription(id_, 0.0))
    assert found is not None
    assert found.topic == "t"
    assert finished(world.broker.overview.subscription(id_ + 1, 0.0)) is None
