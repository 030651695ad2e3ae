"""Running trio code from a command, where a person may press Ctrl-C at any moment."""

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio


T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def run(work: Callable[[*Arguments], Awaitable[T]], *arguments: *Arguments) -> T:
    """`trio.run`, except that Ctrl-C is a plain KeyboardInterrupt, whatever it interrupted.

    It may hit more than one task, and then comes as a group.
    """
    try:
        return trio.run(work, *arguments, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        interrupts, others = group.split(KeyboardInterrupt)
        if interrupts is None or others is not None:
            raise
    raise KeyboardInterrupt
