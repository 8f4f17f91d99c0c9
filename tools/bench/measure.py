"""One mode as it was asked for: the server, the clients, the work, and a row of figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from blipmq.protocol import encoder
from tools.bench import echo
from tools.bench.blipmq.daemon_server import BlipmqServer, GivenServer
from tools.bench.blipmq.library import LibraryDriver
from tools.bench.blipmq.poll import POLLS, PollProtocol
from tools.bench.blipmq.push import PREFETCH, PushProtocol
from tools.bench.daemon import API_KEY
from tools.bench.load.kinds import Clients, LibraryClients, WireClients
from tools.bench.load.runner import Pinning, Result, round_trips, run
from tools.bench.load.server import Address, Server
from tools.bench.load.work import AHEAD_MESSAGES, WINDOW_MESSAGES, Guarantee, Work
from tools.bench.modes import LIBRARY_SHARE, MODES, Mode, Shape
from tools.bench.table import TITLE

RATE_SECONDS = 5.0
"""How long a rate is kept up when nothing says how long."""


class NotPossible(Exception):
    """These options together ask for what there is not."""


@attrs.frozen(kw_only=True)
class Options:
    """What replaces a mode's own; None: as the mode has it."""

    publishers: int | None = None
    subscribers: int | None = None
    topics: int | None = None
    sizes: tuple[int, ...] | None = None
    qos: int | None = None
    use_wal: bool | None = None
    fsync_policy: str | None = None
    seconds: float | None = None
    messages: int | None = None
    delivery: str | None = None
    rate: float | None = None
    window: int = WINDOW_MESSAGES
    ahead: int = AHEAD_MESSAGES
    prefetch: int | None = None
    polls: int | None = None
    kind: str = "wire"
    address: Address | None = None
    api_key: str = API_KEY
    directory: Path
    python: str | None = None
    pinning: Pinning | None = None


@attrs.frozen
class Row:
    """What was measured, and everything that it depends on."""

    mode: str
    says: str
    delivery: str
    guarantee: str
    publishers: int
    subscribers: int
    topics: int
    sizes: tuple[int, ...]
    bounds: Mapping[str, float | None]
    server: Mapping[str, str]
    result: Result

    @property
    def line(self) -> Line:
        """The row of the table."""
        result = self.result
        confirms = MODES[self.mode].shape is Shape.CONFIRMS
        latency = result.confirm_latency if confirms else result.latency
        return Line(
            self.mode,
            result.kind,
            self.delivery,
            self.guarantee,
            self.server.get("wal", "-"),
            f"{self.publishers}->{self.subscribers} on {self.topics}",
            ",".join(map(str, self.sizes)),
            result.received or result.published,
            result.seconds,
            result.rate if self.subscribers else result.published_rate,
            latency.p50_us if latency else None,
            latency.p95_us if latency else None,
            latency.p99_us if latency else None,
            latency.p99_9_us if latency else None,
            latency.max_us if latency else None,
            result.cpu_s_per_million,
            result.peak_memory_mib,
        )


@attrs.frozen
class Line:
    """Figures for people. Latencies are in microseconds; CPU is seconds for a million messages."""

    mode: str
    client: str
    delivery: str
    qos: str
    log: str
    clients: str
    body_bytes: str
    messages: int
    seconds: float
    a_second: float
    p50: float | None
    p95: float | None
    p99: float | None
    p99_9: float | None = attrs.field(metadata={TITLE: "p99.9"})
    max: float | None
    cpu: float | None
    peak_mib: float | None


def measure(name: str, options: Options) -> Row:
    """Raises NotPossible, and what `run` raises."""
    mode = MODES[name]
    work = work_of(mode, options)
    if mode.shape is Shape.ECHO:
        return _row(name, mode, options, work, *_echo(work, options))
    delivery = delivery_of(mode, options)
    clients = clients_of(mode, options, delivery)
    server = server_of(mode, options)
    with server.start() as running:
        if mode.shape is Shape.TRIPS:
            result = round_trips(running, clients, work, pinning=options.pinning)
        else:
            result = run(running, clients, work, pinning=options.pinning)
    return _row(name, mode, options, work, server.settings, result)


def _row(
    name: str, mode: Mode, options: Options, work: Work, server: Mapping[str, str], result: Result
) -> Row:
    return Row(
        name,
        mode.says,
        delivery_of(mode, options),
        "-" if mode.shape is Shape.ECHO else str(int(work.guarantee)),
        work.publishers,
        work.subscribers,
        work.topics,
        work.sizes,
        {"ahead": work.ahead, "window": work.window, "rate": work.rate},
        server,
        result,
    )


def _echo(work: Work, options: Options) -> tuple[Mapping[str, str], Result]:
    """The bytes of a publish, there and back; or those of an ACK and a POLL, and a message back."""
    frame = encoder.publish(0, 0, work.topic(0).encode(), bytes(work.sizes[0]))
    asked = encoder.ack(0) + encoder.poll(0, 0) if options.delivery == "poll" else frame
    server = echo.EchoServer(len(asked), len(frame))
    connections = max(1, work.subscribers)
    messages = work.messages or 0
    return server.settings, echo.measure(server, connections, messages, pinning=options.pinning)


def work_of(mode: Mode, options: Options) -> Work:
    """Raises NotPossible."""
    messages, seconds = options.messages, options.seconds
    if messages is not None and seconds is not None:
        raise NotPossible("either --total-messages or --duration-secs")
    if mode.shape is not Shape.FLOW and (seconds is not None or options.rate is not None):
        raise NotPossible("one message at a time has neither a rate nor a duration")
    if messages is None and seconds is None:
        if options.rate is not None:
            seconds = RATE_SECONDS
        else:
            share = LIBRARY_SHARE if options.kind == "client" else 1
            messages = mode.messages // share
    guarantee = mode.guarantee if options.qos is None else Guarantee(options.qos)
    if mode.shape is Shape.CONFIRMS and (not guarantee or options.subscribers):
        raise NotPossible("this mode waits for confirms of QoS 1, and nobody subscribes")
    chosen = attrs.evolve(
        mode,
        publishers=options.publishers or mode.publishers,
        subscribers=mode.subscribers if options.subscribers is None else options.subscribers,
        topics=options.topics or mode.topics,
        sizes=options.sizes or mode.sizes,
    )
    if mode.shape is Shape.TRIPS and (chosen.publishers, chosen.subscribers, chosen.topics) != (
        1,
        1,
        1,
    ):
        raise NotPossible("one message at a time is of one publisher and one subscriber")
    if not chosen.subscribers and not guarantee:
        raise NotPossible("without subscribers, QoS 0 leaves nothing to count")
    try:
        return Work(
            guarantee=guarantee,
            publishers=chosen.publishers,
            subscribers=chosen.subscribers,
            topics=chosen.topics,
            sizes=chosen.sizes,
            messages=messages,
            seconds=seconds,
            rate=options.rate,
            ahead=options.ahead,
            window=1 if mode.shape is Shape.CONFIRMS else options.window,
            preload=mode.shape is Shape.POLLS,
        )
    except ValueError as error:
        raise NotPossible(str(error)) from None


def delivery_of(mode: Mode, options: Options) -> str:
    """`push` or `poll`. Raises NotPossible."""
    polls = mode.shape is Shape.POLLS
    if polls and options.delivery == "push":
        raise NotPossible("this mode is about polling")
    return options.delivery or ("poll" if polls else "push")


def clients_of(mode: Mode, options: Options, delivery: str) -> Clients:
    """Raises NotPossible."""
    if options.kind == "client":
        if delivery == "poll":
            raise NotPossible("the library polls only brokers that cannot push; use --client wire")
        return LibraryClients(LibraryDriver(options.api_key, options.prefetch))
    if delivery == "poll":
        one = mode.shape is not Shape.FLOW
        return WireClients(PollProtocol(options.api_key, options.polls or (1 if one else POLLS)))
    return WireClients(PushProtocol(options.api_key, options.prefetch or PREFETCH))


def server_of(mode: Mode, options: Options) -> Server:
    """Raises NotPossible."""
    if options.address is not None:
        if options.use_wal is not None or options.fsync_policy is not None:
            raise NotPossible("the log of a broker that runs already is as it has been set")
        return GivenServer(options.address)
    if options.use_wal is False and options.fsync_policy is not None:
        raise NotPossible("without a log there is no fsync policy")
    policy = options.fsync_policy or mode.fsync_policy
    if options.use_wal is False:
        policy = None
    elif options.use_wal and policy is None:
        policy = "always"
    return BlipmqServer(fsync_policy=policy, directory=options.directory, python=options.python)
