"""`/debug/tasks`: what the task console has found, for who has an admin key."""

from __future__ import annotations

from typing import Final

import attrs

from blipmq.nursery.admin import require_admin
from blipmq.nursery.api import check_query, whole_number
from blipmq.nursery.console import channel_rows, thread_rows
from blipmq.nursery.http_app import HttpError, Request, Response, Routes, json_response
from blipmq.nursery.state import DaemonState

PATH: Final = "/debug/tasks"
CHILDREN: Final = 20
LIMIT: Final = 200
LIMIT_MAX: Final = 1_000


@attrs.frozen(eq=False)
class DebugApi:
    """Answers when `enable_trio_console` is on."""

    state: DaemonState

    async def tasks(self, request: Request) -> Response:
        """Loop, tasks by name, the tree of tasks, channels, threads."""
        require_admin(self.state, request)
        check_query(request, "children", "limit")
        given = request.query
        children = whole_number(given.get("children", CHILDREN), "children", 0, LIMIT_MAX)
        limit = whole_number(given.get("limit", LIMIT), "limit", 1, LIMIT_MAX)
        console = self.state.console
        if console is None:
            raise HttpError(
                409, "the task console is off; set enable_trio_console and restart the daemon"
            )
        return json_response(
            {
                "loop": console.loop(),
                "names": console.names(),
                "tree": await console.tree(children, limit),
                "channels": channel_rows(self.state.queue),
                "threads": thread_rows(),
            }
        )


def debug_routes(state: DaemonState) -> Routes:
    """For who looks into the daemon itself."""
    return {PATH: {"GET": DebugApi(state).tasks}}
