"""Plans by the seed."""

from __future__ import annotations

from random import Random

from tests.simulation.plan import (
    Burst,
    Fault,
    FaultKind,
    Group,
    Leave,
    Operation,
    Plan,
    Send,
    Setup,
)
from tests.simulation.repeatable import chance

SECONDS = 4.0
"""So long clients and faults are at work."""
TOPICS = ("a.x", "a.y", "b")
CRASHES: tuple[FaultKind, ...] = ("kill", "kill", "power cut", "power cut", "stop", "cancel")
DISK: tuple[FaultKind, ...] = ("full disk", "write error", "fsync error", "slow disk")
NETWORK: tuple[FaultKind, ...] = ("reset", "reset", "half-open", "partition", "deaf")
MOODS = (
    (("accept", 1),),
    (("accept", 6), ("retry", 1), ("release", 1), ("reject", 1), ("ignore", 1)),
    (("accept", 3), ("work", 2), ("fail", 1), ("ignore", 2)),
    (("accept", 1), ("ignore", 2)),
    (("retry", 2), ("accept", 1)),
)


def plan(seed: int) -> Plan:
    rng = chance("plan", seed)
    setup = _setup(rng)
    groups = _groups(rng)
    operations: list[Operation] = list(_bursts(rng))
    members = [label for group in groups for label in group.labels]
    for _ in range(rng.choice((0, 0, 1, 2))):
        operations.append(Leave(_time(rng), rng.choice(members), round(rng.uniform(0.0, 1.0), 3)))
    operations.sort(key=lambda operation: operation.at)
    who = [*members, *sorted({o.who for o in operations if isinstance(o, Burst)})]
    return Plan(seed, setup, groups, tuple(operations), _faults(rng, who))


def _time(rng: Random) -> float:
    return round(rng.uniform(0.2, SECONDS), 3)


def _setup(rng: Random) -> Setup:
    slow = rng.random() < 0.5
    delay = rng.choice((0.001, 0.02, 0.1)) if slow else 0.0
    # What comes so slowly that it falls due on its way never gets through.
    narrow = slow and delay < 0.01
    return Setup(
        fsync=rng.choice(("always", "always", "every_n:3", "interval_ms:50", "none")),
        segment_bytes=rng.choice((256, 256, 1024, 4096)),
        reserve_bytes=rng.choice((0, 4096)),
        heartbeat_ms=rng.choice((0, 500, 2000)),
        max_retries=rng.choice((1, 3, 5)),
        retry_backoff_ms=rng.choice((50, 100, 400)),
        dedup_window_ms=rng.choice((120_000, 120_000, 1_000)),
        max_memory_bytes=rng.choice((1 << 26, 1 << 26, 1 << 18)),
        max_backlog_bytes=rng.choice((1 << 22, 1 << 22, 4096)),
        window_bytes=rng.choice((600, 4096, 1 << 20)),
        dead_letters=rng.random() < 0.9,
        prepares=rng.random() < 0.3,
        delay=delay,
        piece=rng.choice((64, 512, 1 << 16)) if slow else 1 << 16,
        window=rng.choice((256, 4096, 1 << 16)) if narrow else 1 << 16,
        disk_delay=rng.choice((0.0, 0.001, 0.01, 0.02)),
    )


def _groups(rng: Random) -> tuple[Group, ...]:
    groups = [_named(rng, f"n{number}") for number in range(rng.choice((1, 2, 2, 3)))]
    if rng.random() < 0.4:
        groups.append(
            Group("v", rng.choice(TOPICS), "v1", moods=rng.choice(MOODS[:1] + MOODS[3:4]))
        )
    if rng.random() < 0.3:
        groups.append(Group("z", rng.choice((*TOPICS, "a.*", ">")), "qos0"))
    if rng.random() < 0.2:
        groups.append(Group("u", rng.choice(TOPICS), "unnamed", moods=rng.choice(MOODS)))
    if rng.random() < 0.1:
        groups.append(Group("w", rng.choice(TOPICS), "v1-qos0"))
    return tuple(groups)


def _named(rng: Random, name: str) -> Group:
    return Group(
        name,
        rng.choice((*TOPICS, "a.*", ">")),
        members=rng.choice((1, 1, 2, 3)),
        prefetch=rng.choice((1, 3, 16, 100)),
        ack_wait=rng.choice((0.3, 1.0, 5.0)),
        max_attempts=rng.choice((0, 0, 1, 2, 4)),
        start_new=rng.random() < 0.2,
        begins_at=rng.choice((0.0, 0.0, 0.0, 1.0)),
        moods=rng.choice(MOODS),
    )


def _bursts(rng: Random) -> list[Burst]:
    bursts: list[Burst] = []
    number = 0
    publishers = [f"p{index}" for index in range(rng.choice((1, 2, 3)))]
    versions = {who: 1 if rng.random() < 0.25 else 2 for who in publishers}
    named: list[Send] = []
    for _ in range(rng.choice((3, 6, 12))):
        who = rng.choice(publishers)
        old = versions[who] == 1
        fancy = not old and rng.random() < 0.6
        sends: list[Send] = []
        big = rng.random() < 0.1
        topic = rng.choice(TOPICS)
        for _ in range(rng.choice((1, 1, 3, 8))):
            if named and not old and rng.random() < 0.1:
                sends.append(rng.choice(named))
                continue
            number += 1
            send = _send(rng, number, topic, fancy, big)
            sends.append(send)
            if send.named:
                named.append(send)
        bursts.append(
            Burst(
                _time(rng),
                who,
                tuple(sends),
                1 if old else 2,
                pipeline=rng.random() < 0.5,
                patience=rng.choice((30.0, 30.0, 30.0, 0.05, 0.5)),
            )
        )
    return bursts


def _send(rng: Random, number: int, topic: str, fancy: bool, big: bool) -> Send:
    qos = 0 if rng.random() < 0.2 else 1
    size = rng.choice((600, 3000)) if big else rng.choice((0, 0, 20, 100))
    if not fancy or not qos:
        return Send(number, topic, qos, size)
    return Send(
        number,
        topic,
        qos,
        size,
        ttl=rng.choice((None, None, None, 0.2, 1.0, 10.0)),
        delay=rng.choice((0.0, 0.0, 0.0, 0.3, 2.0)),
        key=rng.choice((None, None, b"k", b"l")),
        named=rng.random() < 0.2,
    )


def _faults(rng: Random, who: list[str]) -> tuple[Fault, ...]:
    faults: list[Fault] = []
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        faults.append(_crash(rng))
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        kind = rng.choice(DISK)
        faults.append(
            Fault(
                _time(rng),
                kind,
                seconds=round(rng.uniform(0.1, 1.5), 3),
                calls=rng.choice((0, 0, 1, 3)),
            )
        )
    for _ in range(rng.choice((0, 0, 1, 3))):
        faults.append(
            Fault(
                _time(rng),
                rng.choice(NETWORK),
                rng.choice(who),
                round(rng.choice((0.1, 1.0, 3.0)) * rng.random(), 3),
            )
        )
    if rng.random() < 0.1:
        faults.append(Fault(_time(rng), "clock jump", seconds=rng.choice((-3600.0, -1.0, 3600.0))))
    if rng.random() < 0.1:
        faults.append(Fault(_time(rng), "bit flip"))
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _crash(rng: Random) -> Fault:
    kind = rng.choice(CRASHES)
    by_call = kind in ("kill", "power cut") and rng.random() < 0.5
    return Fault(
        _time(rng),
        kind,
        seconds=rng.choice((0.0, 0.0, 0.2, 2.0)),
        steps=0 if by_call else rng.randrange(60),
        calls=rng.randrange(8) if by_call else None,
    )
