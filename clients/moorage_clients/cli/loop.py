"""Running trio code from a command, where a person may press Ctrl-C at any moment."""

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio


T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def run(work: Callable[[*Arguments], Awaitable[T]], *arguments: *Arguments) -> T:
    """`trio.run`, except that Ctrl-C is a plain KeyboardInterrupt, at a checkpoint.

    It may come as a group. Between two checkpoints it could leave half of a step behind: a task
    that `start_soon` had counted but not scheduled is one that its nursery waits for without end.
    """
    try:
        return trio.run(
            work,
            *arguments,
            restrict_keyboard_interrupt_to_checkpoints=True,
            strict_exception_groups=True,
        )
    except BaseExceptionGroup as group:
        interrupts, others = group.split(KeyboardInterrupt)
        if interrupts is None or others is not None:
            raise
    raise KeyboardInterrupt
