"""`blipmq console`: the daemon's own tasks, what each waits for and what it costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import attrs
import click
import trio
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from blipmq.cli.api import Api, ApiUnreachable, Json
from blipmq.cli.outside import Outside
from blipmq.cli.survey_report import age_text, counted
from blipmq.cli.tables import output, table
from blipmq.cli.target import Target, api_options

DEBUG_TASKS = "/debug/tasks"


@attrs.frozen(kw_only=True)
class Lag:
    """How long tasks that could go on had to wait for others; `histogram` is not cumulative."""

    steps: int
    seconds: float
    longest_seconds: float
    histogram: tuple[dict[str, float], ...]

    def quantile(self, part: float) -> float:
        """Seconds that this part of the steps did not exceed, as the histogram tells."""
        left = part * self.steps
        for bucket in self.histogram:
            left -= bucket["steps"]
            if left <= 0:
                return bucket["below_seconds"]
        return self.longest_seconds


@attrs.frozen(kw_only=True)
class LongStep:
    seconds_ago: float
    name: str
    seconds: float


@attrs.frozen(kw_only=True)
class Loop:
    """The whole daemon."""

    watched_seconds: float
    idle_seconds: float
    tasks: int
    tasks_ended: int
    polls: int
    busy_seconds: float
    lag: Lag
    long_steps: tuple[LongStep, ...]


@attrs.frozen(kw_only=True)
class Name:
    """All tasks of one name."""

    name: str
    running: int
    ended: int
    polls: int
    busy_seconds: float
    longest_step_seconds: float


@attrs.frozen(kw_only=True)
class Nursery:
    """Its tasks; `more` are not shown."""

    tasks: tuple[Task, ...]
    more: int


@attrs.frozen(kw_only=True)
class Task:
    """One task. `waits` is the line that it is at, `waits_for` what of Trio that called."""

    id: int
    name: str
    age_seconds: float
    polls: int
    busy_seconds: float
    longest_step_seconds: float
    waits: str | None
    waits_for: str | None
    deadline_seconds: float | None
    nurseries: tuple[Nursery, ...]


@attrs.frozen(kw_only=True)
class Channel:
    name: str
    places: int
    taken: int
    waiting_batches: int
    waiting_for_a_place: int


@attrs.frozen(kw_only=True)
class Thread:
    name: str
    idle: bool
    at: str | None


@attrs.frozen(kw_only=True)
class Threads:
    borrowed: int
    total: int
    threads: tuple[Thread, ...]


@attrs.frozen(kw_only=True)
class Tasks:
    """What `/debug/tasks` answers."""

    loop: Loop
    names: tuple[Name, ...]
    tree: Task
    channels: tuple[Channel, ...]
    threads: Threads


class Show(Protocol):
    """Shows a view, with the one before it; `error`: why there is no newer one."""

    def __call__(self, before: Json | None, now: Json, error: str | None = None) -> None: ...


def _tell(before: Json | None, now: Json, error: str | None = None) -> None:
    click.echo(json.dumps(now))


@attrs.frozen(kw_only=True)
class TaskWatching:
    """How to watch: `children` of each nursery, every `interval` seconds; `once` only once."""

    children: int
    rows: int
    interval: float
    once: bool
    as_json: bool

    async def run(self, outside: Outside, target: Target) -> None:
        """Goes on until it is cancelled, or `once` is done.

        Raises ApiUnreachable at first, later it goes on trying; and ApiError.
        """
        api = outside.api(target)
        async with outside.waiting(f"asking {api.url}"):
            document = await self._ask(api)
        if self.as_json:
            await self._follow(api, document, _tell)
        elif self.once:
            output().print(self.view(None, api.structured(document, Tasks), None))
        else:
            with Live(console=output(), auto_refresh=False, screen=False) as live:

                def show(before: Json | None, now: Json, error: str | None = None) -> None:
                    tasks = None if before is None else api.structured(before, Tasks)
                    live.update(self.view(tasks, api.structured(now, Tasks), error), refresh=True)

                await self._follow(api, document, show)

    async def _follow(self, api: Api, now: Json, show: Show) -> None:
        before: Json | None = None
        show(before, now)
        while not self.once:
            await trio.sleep(self.interval)
            try:
                before, now = now, await self._ask(api)
            except ApiUnreachable as unreachable:
                if self.as_json:
                    raise
                show(None, now, str(unreachable))
            else:
                show(before, now)

    async def _ask(self, api: Api) -> Json:
        return await api.get_debug(DEBUG_TASKS, children=self.children)

    def view(self, before: Tasks | None, now: Tasks, error: str | None) -> RenderableType:
        """One screen. Rates are those since `before`, or since the daemon began to watch."""
        loop = now.loop
        seconds = loop.watched_seconds - (before.loop.watched_seconds if before else 0)
        if seconds <= 0:  # another daemon has taken its place
            before, seconds = None, loop.watched_seconds
        busy = loop.busy_seconds - (before.loop.busy_seconds if before else 0)
        lag = loop.lag
        text = (
            f"{counted(loop.tasks, 'task')}, {loop.tasks_ended} ended;"
            f" {share(busy, seconds)} of the time in tasks; waiting to go on:"
            f" median below {short(lag.quantile(0.5))}, 99 % below {short(lag.quantile(0.99))},"
            f" longest {short(lag.longest_seconds)}"
        )
        head = Text(text) if error is None else Text.assemble((f"{error}\n", "bold red"), text)
        return Group(
            head,
            self._names(before, now, seconds),
            _tree(now.tree),
            _fills(now),
            _long_steps(loop),
        )

    def _names(self, before: Tasks | None, now: Tasks, seconds: float) -> RenderableType:
        earlier = {row.name: row for row in before.names} if before else {}
        made = table("<tasks", "running", "ended", "steps/s", "busy", "longest step")

        def busy(row: Name) -> float:
            return row.busy_seconds - (earlier[row.name].busy_seconds if row.name in earlier else 0)

        for row in sorted(now.names, key=busy, reverse=True)[: self.rows]:
            polls = row.polls - (earlier[row.name].polls if row.name in earlier else 0)
            made.add_row(
                Text(row.name),
                str(row.running),
                str(row.ended),
                f"{polls / seconds:,.0f}" if seconds else "-",
                share(busy(row), seconds),
                short(row.longest_step_seconds),
            )
        return made


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def short(seconds: float) -> str:
    """A short time, in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _tree(root: Task) -> Tree:
    """Made without recursion, as deep as it may be."""
    made = Tree(_label(root))
    waiting: list[tuple[Task, Tree]] = [(root, made)]
    while waiting:
        task, branch = waiting.pop()
        for nursery in task.nurseries:
            inner = branch.add("nursery") if len(task.nurseries) > 1 else branch
            waiting.extend((child, inner.add(_label(child))) for child in nursery.tasks)
            if nursery.more:
                inner.add(Text(f"and {nursery.more} more", style="dim"))
    return made


def _label(task: Task) -> Text:
    text = Text.assemble((task.name, "bold"), f" {task.id}, {age_text(_ms(task.age_seconds))} old")
    text.append(f", {task.polls} steps, {short(task.busy_seconds)}")
    if task.deadline_seconds is not None:
        text.append(f", for another {task.deadline_seconds:.1f} s")
    if task.waits is not None:
        text.append(f"\n{task.waits}", style="dim")
        text.append(f" ({task.waits_for})" if task.waits_for else "", style="dim")
    return text


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _fills(now: Tasks) -> Text:
    return Text("\n".join(_fill_lines(now)))


def _fill_lines(now: Tasks) -> Iterator[str]:
    for row in now.channels:
        yield (
            f"channel {row.name}: {row.taken} of {row.places} places taken,"
            f" {row.waiting_batches} batches wait, {row.waiting_for_a_place} for a place"
        )
    idle = sum(thread.idle for thread in now.threads.threads)
    yield f"threads: {len(now.threads.threads)}, {idle} idle"
    for thread in now.threads.threads:
        if not thread.idle:
            yield f"  {thread.name}: {thread.at}"


def _long_steps(loop: Loop) -> RenderableType:
    if not loop.long_steps:
        return Text("no step took longer than 10 ms")
    made = table("ago", "took", "<task", title="Long steps")
    for step in loop.long_steps[:5]:
        made.add_row(age_text(_ms(step.seconds_ago)), short(step.seconds), Text(step.name))
    return made


@click.command()
@click.option("--interval", type=click.FloatRange(0.1), default=1.0, show_default=True)
@click.option(
    "--children",
    type=click.IntRange(0, 1000),
    default=5,
    show_default=True,
    help="Tasks of each nursery that are shown: the busiest.",
)
@click.option("--rows", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--once", is_flag=True, help="A single view.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, an object a view.")
@api_options
@click.pass_obj
def console(
    outside: Outside,
    interval: float,
    children: int,
    rows: int,
    once: bool,
    as_json: bool,
    config_path: Path | None,
    api_url: str | None,
    admin_key_file: Path | None,
) -> None:
    """Watch the daemon's own tasks, until it is interrupted. Needs an admin key."""
    target = Target(config_path, api_url_option=api_url, admin_key_file=admin_key_file)
    watching = TaskWatching(
        children=children, rows=rows, interval=interval, once=once, as_json=as_json
    )
    outside.run(partial(watching.run, outside, target))
