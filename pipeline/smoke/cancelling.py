"""Work that Ctrl-C does not leave in its middle: no process stays, and nothing complains later."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(work: Coroutine[object, object, T]) -> T:
    """Do the whole of it even where it is cancelled meanwhile, which is told after that."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def all_of(works: Iterable[Coroutine[object, object, T]]) -> list[T]:
    """Do several at once, and return their results in order; over when the last of them is.

    asyncio.gather is over with the first that is cancelled, and asyncio.run then cancels the others once
    more, while they clear up.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except asyncio.CancelledError:
        await asyncio.wait(tasks)
        raise
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
