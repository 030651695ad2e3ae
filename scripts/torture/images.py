"""Rebuilds what a crash may leave of a store's life, image by image, and looks for losses.

A recorded life is cut at a random step. What was synced by then is in the image; of what was
written since, any part is, in any order, some of it torn at a sector, and of names that were not
synced too. No image may lack what was acknowledged, hold half a change, or not be readable. Every
second image has two crashes: the recovery from a power cut or a kill, and what is written right
after it, is recorded as well, and cut. What it had told by then has to hold. Each round is one
image of each store.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

import trio

from scripts.torture.report import Program, Report, run
from tests.daemon.store.crashes import (
    FILES,
    SOUND,
    SQLITE,
    ForgetsRecreations,
    ForgetsWhatCameMeanwhile,
    Medium,
    Plant,
    forgets_copies,
    one_crash,
    removes_first,
    two_crashes,
)
from tests.daemon.store.lives import Life, files_life, sqlite_life
from tests.daemon.store.platters import Step, only_said


PROGRAM = Program("images", __doc__, rounds=10_000, quick_rounds=300)

LIVES = 20  # per store, of different lengths: the images of one life are alike
COMMITS = 40  # acknowledged in the shortest of them, and as many other changes
CONTROL = 300  # images of what is careless: in fewer it shows already
SAY_EVERY = 1000
MEMORY = Path("/dev/shm")  # where there is one: nothing here is about a real disk


@dataclass(frozen=True)
class Subject:
    """One life of a store, and what is wrong with its recoveries on purpose, if they are crashed
    as well."""

    name: str
    medium: Medium
    life: Life
    plant: Plant | None = None

    def image(self, folder: Path, chance: random.Random) -> str | None:
        """What is wrong with one image, None if nothing is."""
        folder.mkdir()
        try:
            if self.plant is None:
                found = one_crash(self.medium, self.life, folder, chance)
            else:
                found = two_crashes(self.medium, self.life, folder, chance, self.plant)
        finally:
            rmtree(folder)
        return None if found is None else f"{self.name}: {found}"


@dataclass(eq=False)
class Lives:
    """Records lives, each in a directory of its own."""

    work: Path
    count: int = 0

    async def sqlite(self, commits: int, *, careless: bool | None = False) -> Life:
        """A life in SQLite; see `sqlite_life`."""
        place = await self._place()
        await trio.Path(place).mkdir()
        return await sqlite_life(place / "sessions.db", careless=careless, commits=commits)

    async def files(self, commits: int, forgets: Callable[[Any], bool] = SOUND.forgets) -> Life:
        """A life in files; see `files_life`."""
        return await files_life(await self._place(), forgets, commits)

    async def _place(self) -> Path:
        await trio.lowlevel.checkpoint()
        self.count += 1
        return self.work / f"life{self.count}"


async def torture(report: Report) -> None:
    """Image after image, and then those of what is careless."""
    logging.disable()  # stores complain of what they find, and here all of it is judged
    recorder = Lives(report.work)
    subjects: list[tuple[Subject, Subject]] = []
    for number in range(LIVES):
        length = COMMITS + number
        sqlite, files = await recorder.sqlite(length), await recorder.files(length)
        subjects.extend(
            (Subject("sqlite", SQLITE, sqlite, plant), Subject("file", FILES, files, plant))
            for plant in (None, SOUND)
        )
    _judge(report, subjects, await _careless(recorder))


def _judge(
    report: Report, subjects: list[tuple[Subject, Subject]], careless: list[Subject]
) -> None:
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as place:
        folder = Path(place) / "image"
        _look_at_all(report, subjects, folder)
        for subject in careless:
            looks = (subject.image(folder, report.random) for _ in range(CONTROL))
            bad = [problem for problem in looks if problem is not None]
            report.control(subject.name, bad)
            report.figures[f"bad of {CONTROL}: {subject.name}"] = len(bad)


async def _careless(recorder: Lives) -> list[Subject]:
    sqlite, files = await recorder.sqlite(COMMITS), await recorder.files(COMMITS)
    lives = {
        "sqlite that syncs no commit": await recorder.sqlite(COMMITS, careless=True),
        "sqlite that does not sync when a session comes again": await recorder.sqlite(
            COMMITS, careless=None
        ),
    }
    forgetful: dict[str, Callable[[Step], bool]] = {
        "files that are not synced": only_said("sync"),
        "names that are not synced": only_said("names"),
        "names that are not synced when a session comes again": ForgetsRecreations(),
        "copies of journals that are not synced": forgets_copies,
        "what is committed beside a copy and not synced": ForgetsWhatCameMeanwhile(),
    }
    recoveries = {
        "recovery in files that are not synced": Plant(only_said("sync")),
        "recovery of names that are not synced": Plant(only_said("names")),
        "recovery that removes before it has written": Plant(reorder=removes_first),
    }
    return [
        *(Subject(name, SQLITE, life) for name, life in lives.items()),
        Subject("recovery of sqlite without syncs", SQLITE, sqlite, Plant(only_said("sync"))),
        *[
            Subject(name, FILES, await recorder.files(COMMITS, forgets))
            for name, forgets in forgetful.items()
        ],
        *(Subject(name, FILES, files, plant) for name, plant in recoveries.items()),
    ]


def _look_at_all(report: Report, subjects: list[tuple[Subject, Subject]], folder: Path) -> None:
    twice = 0
    for number in range(report.rounds):
        pair = subjects[number % len(subjects)]
        for subject in pair:
            problem = subject.image(folder, report.random)
            report.check(problem is None, str(problem))
        twice += pair[0].plant is not None
        if number % SAY_EVERY == SAY_EVERY - 1:
            report.say(f"{number + 1} images of each store, {len(report.violations)} bad")
    report.figures["images_of_each_store"] = report.rounds
    report.figures["of_them_with_two_crashes"] = twice


if __name__ == "__main__":
    run(PROGRAM, torture)
