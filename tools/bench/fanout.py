"""`python -m tools.bench.fanout`: one topic to 1, 8 and 100 subscribers that prefetch.

At QoS 1 and without a log: what is measured is delivering, not the disk. The publisher is one
process and all subscribers are another one with one thread, which counts and settles.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import attrs
import click

from tools.bench.clients import Go, working
from tools.bench.consumers import Consumer, consume
from tools.bench.daemon import API_KEY, running_daemon
from tools.bench.publishers import Publishers
from tools.bench.table import show

TOPIC = b"fanout"
SUBSCRIBERS = (1, 8, 100)


@attrs.frozen
class Measured:
    """Rates are messages a second; CPU is that of the broker."""

    subscribers: int
    deliveries: int
    published_rate: float
    delivered_rate: float
    cpu_s_per_million_deliveries: float


def _publish(
    address: tuple[str, int], messages: int, size: int, window: int, go: Go
) -> Iterator[float]:
    publishers = Publishers.connect(address, API_KEY, TOPIC, size, 1, window)
    go()
    publishers.publish(messages)
    yield 0.0


def _consume(
    address: tuple[str, int], subscribers: int, messages: int, size: int, prefetch: int, go: Go
) -> Iterator[float]:
    consumers = [
        Consumer.connect(address, API_KEY, TOPIC, b"%d" % place, size, prefetch)
        for place in range(subscribers)
    ]
    go()
    began = time.perf_counter()
    for _ in consume(consumers, messages * subscribers, messages * subscribers):
        pass
    yield time.perf_counter() - began


def measure(subscribers: int, deliveries: int, size: int, window: int, prefetch: int) -> Measured:
    """On a broker of its own, about so many deliveries in all."""
    messages = deliveries // subscribers
    with running_daemon("", "none") as daemon:
        cpu = daemon.cpu_seconds()
        works = [
            partial(_consume, daemon.address, subscribers, messages, size, prefetch),
            partial(_publish, daemon.address, messages, size, window),
        ]
        with working(works) as (consumer, publisher):
            publisher.last_report()
            seconds = consumer.last_report()
        cpu = daemon.cpu_seconds() - cpu
    count = messages * subscribers
    return Measured(subscribers, count, messages / seconds, count / seconds, cpu / count * 1e6)


@click.command()
@click.option("--subscribers", multiple=True, default=SUBSCRIBERS, show_default=True)
@click.option("--deliveries", default=2_000_000, show_default=True, help="In all.")
@click.option("--size", default=256, show_default=True, help="Bytes of a body.")
@click.option("--window", default=1000, show_default=True, help="Unconfirmed messages.")
@click.option("--prefetch", default=4096, show_default=True, help="Of each subscriber.")
@click.option("--json", "as_json", is_flag=True)
def main(
    subscribers: tuple[int, ...],
    deliveries: int,
    size: int,
    window: int,
    prefetch: int,
    as_json: bool,
) -> None:
    """Measure what a subscriber more costs."""
    rows = [measure(count, deliveries, size, window, prefetch) for count in subscribers]
    show({"fanout": rows}, as_json=as_json)


if __name__ == "__main__":
    main()
