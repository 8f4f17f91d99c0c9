"""A file of messages that are to be imported: JSON Lines, or a log of the older format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from blipmq.cli.json_lines import from_line
from blipmq.errors import LogError
from blipmq.wal.legacy import LegacyReader, is_legacy
from blipmq.wal.scan import NoLog, Progress
from blipmq.wal.transfer import StoredMessage


@attrs.define(eq=False)
class MessageFile:
    """After its messages were taken `torn` says how many bytes of an unfinished one are left out.

    Raises LogError when the file cannot be read.
    """

    path: Path
    size: int = attrs.field(init=False)
    torn: int = 0
    _legacy: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        try:
            self._legacy = is_legacy(self.path)
            self.size = self.path.stat().st_size
        except OSError as error:
            raise NoLog(f"{self.path}: {error.strerror}") from None

    def messages(self, progress: Progress) -> Iterator[StoredMessage]:
        """Each one is such that a broker takes it; raises LogError naming the place if not."""
        return self._records(progress) if self._legacy else self._lines(progress)

    def _lines(self, progress: Progress) -> Iterator[StoredMessage]:
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                progress(len(line))
                if not line.strip():
                    continue
                try:
                    yield from_line(line)
                except ValueError as error:
                    raise LogError(f"{self.path}: line {number}: {error}") from None

    def _records(self, progress: Progress) -> Iterator[StoredMessage]:
        reader = LegacyReader(self.path, progress)
        for message in reader:
            stored = StoredMessage(message.topic, message.body)
            try:
                stored.check()
            except ValueError as error:
                raise LogError(f"{self.path}: offset {message.offset}: {error}") from None
            yield stored
        self.torn = reader.torn
