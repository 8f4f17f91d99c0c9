from __future__ import annotations

import pytest
import trio

from blipmq.client.unwrapped import unwrapped


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("by hand", errors)


async def cancelled() -> trio.Cancelled:
    found: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            found.append(error)
            raise
    return found[0]


async def test_an_interrupt_beside_cancelled_comes_out_as_itself() -> None:
    interrupt = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as caught, unwrapped():
        raise group(await cancelled(), group(await cancelled()), interrupt)
    assert caught.value is interrupt
    assert interrupt.__context__ is interrupt.__cause__ is None


async def test_several_interrupts_come_out_as_one() -> None:
    first = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as caught, unwrapped():
        raise group(
            group(await cancelled(), first),
            await cancelled(),
            group(group(KeyboardInterrupt())),
            KeyboardInterrupt(),
        )
    assert caught.value is first
    assert first.__context__ is first.__cause__ is None


def test_an_interrupt_beside_other_errors_comes_out_with_them_as_its_cause() -> None:
    both = group(ValueError(), group(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt) as caught, unwrapped():
        raise both
    assert caught.value.__cause__ is both


def test_a_group_of_the_body_is_left_as_it_is() -> None:
    mine = group(KeyboardInterrupt(), ValueError())
    with pytest.raises(BaseExceptionGroup) as caught, unwrapped():
        raise group(mine)
    assert caught.value is mine


def test_errors_without_an_interrupt_come_out_as_their_group() -> None:
    both = group(ValueError(), TypeError())
    with pytest.raises(BaseExceptionGroup) as caught, unwrapped():
        raise both
    assert caught.value is both
