"""Crashes of stores: images of the disk, and what is wrong with what a store makes of one.

The first crash is a power cut, or a kill that leaves all that was written, durable or not. The
second one hits the recovery from it, or what is written right after: it is always a power cut.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage_daemon.store.files.copying import DRAFT
from moorage_daemon.store.files.journal import ENDING
from moorage_daemon.store.port import StoreError
from tests.daemon.store import media, platters
from tests.daemon.store.lives import (
    Life,
    State,
    Wrong,
    found_in_files,
    found_in_sqlite,
    recover_files,
    recover_sqlite,
)


@dataclass(frozen=True)
class Medium:
    """How crashes of one store are made and looked into."""

    power_cut: Callable[..., int]
    kill: Callable[..., int]
    files_in: Callable[[Path], Any]
    find: Callable[[Path], State]
    recover: Callable[..., Any]


SQLITE = Medium(media.power_cut, media.kill, media.files_in, found_in_sqlite, recover_sqlite)
FILES = Medium(platters.power_cut, platters.kill, platters.files_in, found_in_files, recover_files)


@dataclass(frozen=True)
class Plant:
    """What is wrong with a recovery on purpose: steps that it only says to do, or their order."""

    forgets: Callable[[Any], bool] = lambda _: False
    reorder: Callable[[list[Any]], list[Any]] = lambda steps: steps


SOUND = Plant()


def one_crash(medium: Medium, life: Life, folder: Path, chance: random.Random) -> str | None:
    """What is wrong after one power cut, None if nothing is."""
    at = chance.randrange(len(life.steps) + 1)
    try:
        acked = medium.power_cut(life.steps, at, folder / "image", chance)
        life.judge(medium.find(folder / "image"), acked)
    except (StoreError, Wrong) as problem:
        return f"cut at {at}: {problem!r}"
    return None


def two_crashes(
    medium: Medium, life: Life, folder: Path, chance: random.Random, plant: Plant = SOUND
) -> str | None:
    """The same after a crash, and a power cut in the recovery from it."""
    at = chance.randrange(len(life.steps) + 1)
    is_kill = chance.random() < 0.5
    first, second = folder / "first", folder / "second"
    tape: Sequence[Any] = life.steps[:at] if is_kill else ()
    found: Any = None
    later = -1
    try:
        if is_kill:
            acked = medium.kill(life.steps, at, first)
        else:
            acked, found = medium.power_cut(life.steps, at, first, chance), medium.files_in(first)
        recovery = medium.recover(first, plant.forgets)
        life.judge(recovery.state, acked)
        steps = plant.reorder(recovery.steps[: recovery.told]) + recovery.steps[recovery.told :]
        later = chance.randrange(len(steps) + 1)
        medium.power_cut([*tape, *steps], len(tape) + later, second, chance, found)
        recovery.judge(life, acked, later, medium.find(second))
    except (StoreError, Wrong) as problem:
        first_crash = "kill" if is_kill else "cut"
        return f"{first_crash} at {at}, then cut at {later} of the recovery: {problem!r}"
    return None


# ---- what careless stores do


@dataclass(eq=False)
class ForgetsRecreations:
    """Says that it made the names of journals durable, and does not if one of them came again."""

    removed: set[str] = field(default_factory=set[str])
    is_due: bool = False

    def __call__(self, step: platters.Step) -> bool:
        """Whether it forgets this step."""
        if step.folder != "sessions":
            return False
        if step.what == "remove":
            self.removed.add(step.name)
        elif step.what == "make" and step.name in self.removed:
            self.is_due = True
        elif step.what == "names" and self.is_due:
            self.is_due = False
            self.removed.clear()
            return True
        return False


def forgets_copies(step: platters.Step) -> bool:
    """Says that it made copies of journals durable, and does not."""
    return step.what == "sync" and step.name.endswith(f"{ENDING}{DRAFT}")


@dataclass(eq=False)
class ForgetsWhatCameMeanwhile:
    """Makes the first part of a copy durable, and only says so of what was committed beside it."""

    begun: set[str] = field(default_factory=set[str])

    def __call__(self, step: platters.Step) -> bool:
        """Whether it forgets this step."""
        if step.what == "rename":
            self.begun.discard(step.name)
        if not forgets_copies(step):
            return False
        is_first = step.name not in self.begun
        self.begun.add(step.name)
        return not is_first


def removes_first(steps: list[platters.Step]) -> list[platters.Step]:
    """The steps of a recovery that gives up old segments before it has written the new one."""
    gone = [n for n, s in enumerate(steps) if s.what == "rename" and s.new.endswith(".spare")]
    if not gone:
        return steps
    synced = next(n for n in range(gone[-1], len(steps)) if steps[n].what == "names")
    early = {*gone, synced}
    return [steps[n] for n in sorted(early)] + [s for n, s in enumerate(steps) if n not in early]


def first_loss(
    medium: Medium, life: Life, folder: Path, images: int, plant: Plant | None = None
) -> str | None:
    """What is wrong with the first bad one of so many images of a life.

    They are after one crash, or after two where a recovery is planted.
    """
    chance = random.Random(11)
    for number in range(images):
        place = folder / f"{number}"
        place.mkdir()
        if plant is None:
            problem = one_crash(medium, life, place, chance)
        else:
            problem = two_crashes(medium, life, place, chance, plant)
        if problem is not None:
            return problem
    return None
