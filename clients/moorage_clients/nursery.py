"""A nursery for a library's own tasks, which its users need not know about.

An error in the block, or the one error of a task, comes out as itself. trio's guide to libraries
leaves the choice between that and always raising groups; a user who writes `except NotFound`
around the block is right to expect the former.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import cast

import trio


@asynccontextmanager
async def open_quiet_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """Open a nursery that raises a single error bare; several stay a group."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        errors = [error for error in _leaves(group) if not isinstance(error, trio.Cancelled)]
        if len(errors) == 1:
            raise errors[0] from errors[0].__cause__
        raise


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", error))
        else:
            yield error
