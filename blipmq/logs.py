"""Where log lines go and what they look like. What is worth a line is the caller's business."""

from __future__ import annotations

import logging
import sys
from collections.abc import Hashable
from typing import Final, Literal, TextIO

import attrs
import structlog
from structlog.typing import FilteringBoundLogger, Processor

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["console", "json"]

LEVELS: Final[dict[Level, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure(level: Level, output_format: Format, stream: TextIO | None = None) -> None:
    """Send the log lines of this process to `stream` (standard error), one event a line.

    Lines from `logging`, which libraries use, get the same form. Tracebacks never show the
    values of local variables, which may be API keys.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[Processor]
    if output_format == "json":
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        rendering = [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(level=LEVELS[level], handlers=[handler], force=True)


def set_level(level: Level) -> None:
    """Write lines of this level and above from now on; all else stays as it was configured."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]))
    logging.getLogger().setLevel(LEVELS[level])


@attrs.define
class _Window:
    """The second that began at `since`, and what was done in it for one key."""

    since: float
    lines: int = 0
    suppressed: int = 0


@attrs.define
class RateLimited:
    """A logger for what strangers can provoke: at most so many lines a second for each key.

    What is held back is counted, and the next line of the key says how many as `suppressed`.
    Of `max_keys` keys at once each has its own budget; the keys beyond share one, so memory is
    bounded whatever keys are used. `now` is in seconds, on any clock that does not go back.
    """

    logger: FilteringBoundLogger
    lines_per_second: int = 5
    max_keys: int = 1_024
    _windows: dict[Hashable, _Window] = attrs.field(factory=dict, init=False)

    def warning(self, key: Hashable, event: str, *, now: float, **values: object) -> bool:
        """Log `event` as a warning, unless `key` had its lines in this second: then False."""
        window = self._window(key, now)
        if now - window.since >= 1:
            window.since = now
            window.lines = 0
        if window.lines >= self.lines_per_second:
            window.suppressed += 1
            return False
        window.lines += 1
        if window.suppressed:
            values["suppressed"] = window.suppressed
            window.suppressed = 0
        self.logger.warning(event, **values)
        return True

    def _window(self, key: Hashable, now: float) -> _Window:
        window = self._windows.get(key)
        if window is None and len(self._windows) >= self.max_keys:
            self._forget_quiet_keys(now)
            if len(self._windows) >= self.max_keys:
                key = _OTHER_KEYS
                window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(since=now)
        return window

    def _forget_quiet_keys(self, now: float) -> None:
        self._windows = {
            key: window
            for key, window in self._windows.items()
            if now - window.since < 1 or window.suppressed
        }


_OTHER_KEYS: Final = object()
