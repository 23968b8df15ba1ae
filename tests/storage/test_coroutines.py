"""Coroutines in the thread that asks: results and errors come through, an interruption leaves nothing behind."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.coroutines import run_coroutine


async def answer(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


def test_results_come_from_every_thread_with_or_without_a_running_loop() -> None:
    async def within() -> int:
        return run_coroutine(answer(1))

    assert asyncio.run(within()) == 2
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda number: run_coroutine(answer(number)), range(4))) == [1, 2, 3, 4]
    assert run_coroutine(answer(9)) == 10


def test_an_error_is_raised_as_it_is() -> None:
    async def fail() -> None:
        raise KeyError("w")

    with pytest.raises(KeyError, match="w"):
        run_coroutine(fail())
    assert run_coroutine(answer(0)) == 1


def test_what_is_interrupted_does_not_go_on_within_the_next() -> None:
    seen: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def long() -> None:
        asyncio.get_running_loop().call_soon(interrupt)
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("cancelled")

    with pytest.raises(KeyboardInterrupt):
        run_coroutine(long())
    assert seen == ["cancelled"]
    assert run_coroutine(answer(1)) == 2
