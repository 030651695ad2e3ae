"""Cuts the power under a daemon's core, and looks for what was told.

The store lies on a file system in an image. At a random moment the core is stopped, what it has
said until then is read, and the image is copied as it is: what the file system had not handed to
its disk by then is not in the copy. Mounted anew, which replays its journal, the copy has to hold
all that was told. Each round is one cut of each store. It takes root and loop devices.
"""

import logging
import shutil
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from moorage_daemon.store.port import StoreError
from scripts.torture.kills import work
from scripts.torture.report import CannotRun, Program, Report, run
from scripts.torture.sitting import STORES, Sitting, judge, read_left, scribe
from scripts.torture.wire import Gone


PROGRAM = Program("power", __doc__, rounds=20, quick_rounds=2)

SIZE = 96  # MiB of the image: the reserve, the log of commits and a second of work
MOST_UPTIME = 0.8  # seconds of work before the cut
SILENCE = 0.1  # seconds without a word after which a stopped core has said all
CONTROLS = 5  # cuts in which a store that waits for no disk has to lose something


def _do(*command: str) -> None:
    """Run a command as root; raises `CannotRun` where that is not allowed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotRun(f"there is no {command[0]}") from None
    if done.returncode:
        raise CannotRun(f"images need root and loop devices: {done.stderr.splitlines()[-1:]}")


@contextmanager
def mounted(image: Path, place: Path) -> Generator[Path]:
    """The file system in an image, at a place of its own."""
    place.mkdir()
    _do("mount", "-o", "loop", str(image), str(place))
    try:
        yield place
    finally:
        _do("umount", str(place))
        place.rmdir()


def new_image(image: Path) -> None:
    """An empty file system."""
    with image.open("wb") as file:
        file.truncate(SIZE * 2**20)
    _do("mkfs.ext4", "-q", "-F", str(image))


async def cut(report: Report, store: str, fault: str = "none") -> tuple[int, list[str]]:
    """One power cut: how many entries were told before it, and what is wrong after it."""
    image, copy = report.work / "disk", report.work / "copy"
    new_image(image)
    with mounted(image, report.work / "before") as place:
        sitting = Sitting(place)
        with suppress(Gone):
            async with scribe(sitting, store, fault=fault) as (client, process):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(work, client, sitting)
                    await trio.sleep(report.random.uniform(0, MOST_UPTIME))
                    process.send_signal(signal.SIGSTOP)
                    await _until_silent(sitting)
                    await trio.to_thread.run_sync(shutil.copyfile, image, copy)
                    process.send_signal(signal.SIGKILL)
    with mounted(copy, report.work / "after") as place:
        try:
            wrong = judge(sitting, await read_left(store, place / "kept"))
        except (StoreError, AssertionError) as problem:
            wrong = [f"what is left cannot be read: {problem!r}"]
    return sitting.told, wrong


async def _until_silent(sitting: Sitting) -> None:
    told = -1
    while told != sitting.told:
        told = sitting.told
        await trio.sleep(SILENCE)


async def torture(report: Report) -> None:
    """Cut both, and then those that do not wait for the disk."""
    logging.disable()  # what recovery finds is judged, and expected
    told = dict.fromkeys(STORES, 0)
    for number in range(report.rounds):
        for store in STORES:
            count, wrong = await cut(report, store)
            told[store] += count
            for problem in wrong:
                report.violation(f"{store}, cut {number + 1}: {problem}")
        report.say(f"{number + 1} cuts of each store, {told} entries told")
    for store in STORES:
        noticed = False
        for _ in range(CONTROLS):
            noticed = noticed or bool((await cut(report, store, "careless"))[1])
        report.control(f"{store}, careless", noticed)
    report.figures["cuts_of_each_store"] = report.rounds
    report.figures["entries_told"] = told


if __name__ == "__main__":
    run(PROGRAM, torture)
