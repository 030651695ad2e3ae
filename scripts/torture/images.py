"""Rebuilds what a power cut may leave of a store's life, image by image, and looks for losses.

A recorded life is cut at a random step. What was synced by then is in the image; of what was
written since, any part is, in any order, some of it torn at a sector, and of names that were not
synced too. No image may lack what was acknowledged, hold half a commit, or not be readable. Each
round is one image of each store.
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

from moorage_daemon.store.port import StoreError
from scripts.torture.report import Program, Report, run
from tests.daemon.store import media, platters
from tests.daemon.store.lives import (
    found_in_files,
    found_in_sqlite,
    record_files,
    record_sqlite,
)


PROGRAM = Program("images", __doc__, rounds=10_000, quick_rounds=300)

LIVES = 20  # per store: the images of one life are alike
COMMITS = 60  # acknowledged in each of them
CONTROL = 300  # images of a careless life: in fewer it shows already
SAY_EVERY = 1000
MEMORY = Path("/dev/shm")  # where there is one: nothing here is about a real disk


@dataclass(frozen=True)
class Life:
    """The tape of one life, and how its images are made and looked into."""

    store: str
    steps: list[Any]
    cut: Callable[[list[Any], int, Path, random.Random], int]
    find: Callable[[Path], tuple[int, str]]

    def image(self, folder: Path, chance: random.Random) -> str | None:
        """What is wrong with one image, None if nothing is."""
        acked = self.cut(self.steps, chance.randrange(len(self.steps) + 1), folder, chance)
        try:
            found, verdict = self.find(folder)
        except (StoreError, AssertionError) as problem:
            return f"{self.store}: not readable, or half a commit: {problem!r}"
        if verdict != "ok":
            return f"{self.store}: damaged: {verdict}"
        return f"{self.store}: {acked} acknowledged, {found} found" if found < acked else None


def _files(folder: Path) -> tuple[int, str]:
    return found_in_files(folder), "ok"


async def sqlite_life(folder: Path, seed: int, *, careless: bool = False) -> Life:
    """A life in SQLite; a careless one waits for no sync of a commit."""
    await trio.Path(folder).mkdir()
    path = folder / "sessions.db"
    steps = await record_sqlite(path, careless=careless, commits=COMMITS, seed=seed)
    return Life("sqlite", steps, media.power_cut, found_in_sqlite)


async def files_life(folder: Path, seed: int, careless: str | None = None) -> Life:
    """A life in files; a careless one only says that it syncs."""
    left_out = frozenset({careless} if careless else ())
    steps = await record_files(folder, left_out, COMMITS, seed)
    return Life("file", steps, platters.power_cut, _files)


async def torture(report: Report) -> None:
    """Image after image, and then those of careless stores."""
    logging.disable()  # stores complain of what they find, and here all of it is judged
    seeds = range(report.seed, report.seed + LIVES)
    lives = [await sqlite_life(report.work / f"sqlite{seed}", seed) for seed in seeds]
    lives += [await files_life(report.work / f"file{seed}", seed) for seed in seeds]
    careless = {
        "sqlite that syncs no commit": await sqlite_life(report.work / "c1", 7, careless=True),
        "files that are not synced": await files_life(report.work / "c2", 7, "sync"),
        "names that are not synced": await files_life(report.work / "c3", 7, "names"),
    }
    _judge(report, lives, careless)


def _judge(report: Report, lives: list[Life], careless: dict[str, Life]) -> None:
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as place:
        folder = Path(place) / "image"
        _look_at_all(report, lives, folder)
        for name, life in careless.items():
            bad = [p for _ in range(CONTROL) if (p := _one(report, life, folder)) is not None]
            report.control(name, bad)
            report.figures[f"bad of {CONTROL}: {name}"] = len(bad)


def _look_at_all(report: Report, lives: list[Life], folder: Path) -> None:
    half = len(lives) // 2
    for number in range(report.rounds):
        for life in (lives[number % half], lives[half + number % half]):
            problem = _one(report, life, folder)
            report.check(problem is None, str(problem))
        if number % SAY_EVERY == SAY_EVERY - 1:
            report.say(f"{number + 1} images of each store, {len(report.violations)} bad")
    report.figures["images_of_each_store"] = report.rounds


def _one(report: Report, life: Life, folder: Path) -> str | None:
    try:
        return life.image(folder, report.random)
    finally:
        rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run(PROGRAM, torture)
