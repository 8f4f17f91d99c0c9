"""When there is no room to write: which errors of the system say so, and what they become."""

from __future__ import annotations

import errno
from typing import Final

from blipmq.errors import LogError

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_ROOM: Final = frozenset({errno.EFBIG, errno.EMFILE, errno.ENFILE})


class NoRoom(LogError):
    """The disk, the quota or a limit on files is full. Nothing was appended; try again later."""


class NoSpace(NoRoom):
    """It is the disk or a quota that is full, so that giving up the reserve makes room."""


def write_error(error: OSError) -> LogError:
    """What a write that failed is told as."""
    text = error.strerror or str(error)
    if error.errno in NO_SPACE:
        return NoSpace(text)
    return NoRoom(text) if error.errno in _NO_ROOM else LogError(text)
