"""What a repair does and what is lost, in words."""

from __future__ import annotations

import click

from blipmq.cli.survey_report import counted, topic_text
from blipmq.wal.repair import Repair
from blipmq.wal.salvage import Damage
from blipmq.wal.scan import Loss
from blipmq.wal.segment import segment_name


def damage_text(damage: Damage) -> str:
    """File, offset, reason and how much it is, on one line."""
    size = f" ({damage.size} bytes)" if damage.size else ""
    return f"{damage.name}: offset {damage.start}: {damage.reason}{size}"


def print_repair(repair: Repair) -> None:
    """On standard output."""
    for damage in repair.damages:
        click.echo(f"damaged: {damage_text(damage)}")
    for sequence in repair.removed:
        click.echo(f"removed: {segment_name(sequence)}: nothing in it can be used")
    for loss in repair.losses:
        click.echo(f"lost: {loss_text(repair, loss)}")
    if not repair.needed:
        return
    if not repair.losses:
        click.echo("no message is lost")
    if repair.scan.checkpoint is None:
        click.echo(f"checkpoint: {_checkpoint_text(repair)}")
    if repair.settlements_lost:
        click.echo(
            "settlements may be lost, and that subscriptions began or ended: messages that were"
            " settled may be delivered again"
        )
    else:
        click.echo("no settlement is lost")


def loss_text(repair: Repair, loss: Loss) -> str:
    """Which messages, as far as can be known."""
    where = f"{loss.damage.name}: offset {loss.damage.start}"
    numbers = f"{loss.first} and up" if loss.last is None else f"{loss.first} to {loss.last}"
    if loss.topic is None:
        known = loss.messages_max
        most = "messages" if known is None else f"at most {counted(known, 'message')}"
        return f"{most} with numbers {numbers}, topics unknown ({where})"
    wanted = repair.wanted_by[loss]
    if wanted.subscriptions:
        whose = f"wanted by subscription {', '.join(map(str, wanted.subscriptions))}"
    else:
        whose = "kept for a first subscription" if wanted.kept else "settled by everybody"
    return f"topic {topic_text(loss.topic)}, numbers {numbers}, {whose} ({where})"


def _checkpoint_text(repair: Repair) -> str:
    if repair.scan.state_from:
        name = segment_name(repair.scan.state_from)
        return f"rebuilt from that of {name} and all that is logged since"
    return (
        "none is left; what subscriptions there were is known only so far as they began in what"
        " is left, and other messages are kept for a first subscription"
    )
