from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from blipmq.client.reply import Reply
from blipmq.protocol.frames import ACK, Frame

ANSWER = Frame(ACK, 1, bytes(8))


@pytest.mark.parametrize("order", ["answered, cancelled", "cancelled, answered", "answered later"])
async def test_an_answer_reaches_its_task_or_whoever_takes_over(
    nursery: trio.Nursery, order: str
) -> None:
    reply = Reply()
    waited: list[Frame] = []
    taken_over: list[Frame] = []
    scope = trio.CancelScope()

    async def wait() -> None:
        with scope:
            try:
                waited.append(await reply.wait())
            except trio.Cancelled:
                reply.abandon(taken_over.append)
                raise

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    if order == "answered, cancelled":
        reply.answered(ANSWER)
        scope.cancel()
    elif order == "cancelled, answered":
        scope.cancel()
        reply.answered(ANSWER)
    else:
        scope.cancel()
        await wait_all_tasks_blocked()
        reply.answered(ANSWER)
    await wait_all_tasks_blocked()
    assert waited == ([ANSWER] if order == "answered, cancelled" else [])
    assert taken_over == ([] if waited else [ANSWER])
