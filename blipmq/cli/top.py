"""`blipmq top`: what happens in a broker, while it does."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
import click
import trio
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.text import Text

from blipmq.broker.overview import SubscriptionView, TopicView
from blipmq.cli.api import Api, ApiUnreachable
from blipmq.cli.lists import Listing, state_text
from blipmq.cli.outside import Outside
from blipmq.cli.rates import COUNTED, Rates, Sample, rates
from blipmq.cli.survey_report import age_text, counted
from blipmq.cli.tables import amount_cells, output, shown, table
from blipmq.cli.target import Target, api_options


@attrs.frozen(kw_only=True)
class Watching:
    """How to watch: `rows` of each kind, every `interval` seconds; `once` gives a single view."""

    rows: int
    interval: float
    once: bool
    as_json: bool

    async def run(self, outside: Outside, target: Target) -> None:
        """Goes on until it is cancelled, or `once` is done.

        Raises ApiUnreachable at first; later it goes on trying.
        """
        api = outside.api(target)
        async with outside.waiting(f"asking {api.url}"):
            sample = await self._look(api, outside, target)
        if self.once:
            before = None
            if self.interval:
                await trio.sleep(self.interval)
                before, sample = sample, await self._look(api, outside, target)
            self._tell(before, sample)
        elif self.as_json:
            await self._follow(api, outside, target, sample, self._tell)
        else:
            with Live(console=output(), auto_refresh=False, screen=False) as live:

                def show(before: Sample | None, now: Sample, error: str | None = None) -> None:
                    live.update(view(now, rates(before, now), error), refresh=True)

                await self._follow(api, outside, target, sample, show)

    async def _follow(
        self,
        api: Api,
        outside: Outside,
        target: Target,
        sample: Sample,
        show: Callable[[Sample | None, Sample, str | None], None],
    ) -> None:
        before: Sample | None = None
        error: str | None = None
        while True:
            show(before, sample, error)
            await trio.sleep(self.interval or 1.0)
            try:
                before, sample, error = sample, await self._look(api, outside, target), None
            except ApiUnreachable as unreachable:
                error = str(unreachable)

    async def _look(self, api: Api, outside: Outside, target: Target) -> Sample:
        overview = await api.get("/overview")
        topics = Listing("/topics", "topics", self.rows, by_backlog=True)
        subscriptions = Listing("/subscriptions", "subscriptions", self.rows, by_backlog=True)
        counts, uptime = overview.get("counts"), overview.get("uptime_seconds")
        return Sample(
            trio.current_time(),
            str(overview.get("version")),
            overview.get("ready") is True,
            float(uptime) if isinstance(uptime, int | float) else 0.0,
            counts if isinstance(counts, dict) else {},
            tuple(await topics.rows(outside, target, TopicView)),
            tuple(await subscriptions.rows(outside, target, SubscriptionView)),
        )

    def _tell(self, before: Sample | None, now: Sample, error: str | None = None) -> None:
        found = rates(before, now)
        if not self.as_json:
            output().print(view(now, found, error))
            return
        document = {
            "ready": now.ready,
            "uptime_seconds": now.uptime_seconds,
            "error": error,
            "counts": now.counts,
            "rates": found.counts,
            "topics": [
                {**attrs.asdict(row), "published_rate": found.topics[row.topic]}
                for row in now.topics
            ],
            "subscriptions": [
                {**attrs.asdict(row), "backlog_rate": found.backlogs[row.id]}
                for row in now.subscriptions
            ],
        }
        click.echo(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))


def view(now: Sample, found: Rates, error: str | None) -> RenderableType:
    """One screen: the whole broker, then topics and subscriptions with the largest backlogs."""
    state = "ready" if now.ready else "not ready"
    head = Text(
        f"BlipMQ {now.version}, {state}, up {age_text(round(now.uptime_seconds * 1000))};"
        f" {counted(now.count('connections'), 'connection')},"
        f" {counted(now.count('topics'), 'topic')},"
        f" {counted(now.count('subscriptions'), 'subscription')},"
        f" {decimal(now.count('memory_bytes'))} in memory,"
        f" {counted(now.count('inflight'), 'message')} out"
    )
    if error is not None:
        head = Text.assemble((f"{error}\n", "bold red"), head)
    whole = table(*(name.replace("_", " ") for name in COUNTED), title="A second")
    whole.add_row(*(rate_text(found.counts[name]) for name in COUNTED))
    topics = table(
        "<topic", "published/s", "subscriptions", "waiting", "bytes", "oldest", title="Topics"
    )
    for topic in now.topics:
        rate = rate_text(found.topics[topic.topic])
        cells = amount_cells(topic.backlog)
        topics.add_row(shown(topic.topic), rate, str(topic.subscriptions), *cells)
    slow = sum(row.slow for row in now.subscriptions)
    subscriptions = table(
        "id", "<topic", "<name", "members", "out", "waiting", "growing/s", "bytes", "oldest",
        "<state", title=f"Subscriptions, {slow} slow",
    )  # fmt: skip
    for row in now.subscriptions:
        messages, size, age = amount_cells(row.backlog)
        subscriptions.add_row(
            str(row.id),
            shown(row.topic),
            shown(row.name or ""),
            str(row.members),
            str(row.unsettled),
            messages,
            rate_text(found.backlogs[row.id]),
            size,
            age,
            state_text(row),
        )
    return Group(head, whole, topics, subscriptions)


def rate_text(rate: float | None) -> str:
    """With as many digits as say something."""
    if rate is None:
        return "-"
    return f"{rate:.1f}" if abs(rate) < 10 else f"{rate:,.0f}"


@click.command()
@click.option("--interval", type=click.FloatRange(0), default=1.0, show_default=True)
@click.option("--rows", type=click.IntRange(1, 1000), default=15, show_default=True)
@click.option("--once", is_flag=True, help="A single view, after one interval; 0: without rates.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, an object a view.")
@api_options
@click.pass_obj
def top(
    outside: Outside,
    interval: float,
    rows: int,
    once: bool,
    as_json: bool,
    config_path: Path | None,
    api_url: str | None,
    admin_key_file: Path | None,
) -> None:
    """Watch rates, backlogs, ages and slow consumers, until it is interrupted."""
    target = Target(config_path, api_url_option=api_url, admin_key_file=admin_key_file)
    watching = Watching(rows=rows, interval=interval, once=once, as_json=as_json)
    outside.run(partial(watching.run, outside, target))
