"""Damage inside the log of commits: what is known of the commits that cannot be read any more.

Each of them was acknowledged. A session whose commits go on behind the damage shows by their
numbers that some are missing, and one that is named in what is left of the damaged bytes is known
from there. Such sessions are set apart: a file beside the journal holds what there is of the
commits that it lacks, until the journal has them, somebody removes the file, or the session is
deleted. Of a commit that the bytes do not tell any more nothing can be known: its sessions load
without it, and one that it removed may be back. So all of the bytes are kept, and reported.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from moorage_daemon.store.files.journal import CUT, UNPLACED, name_of


DAMAGED = ".damaged"  # what stood among the commits of a segment, with the place where it stood

_PUT = re.compile(rb'\[("(?:[^"\\]|\\.)*"),(\d{1,18}),(\d{1,18}),\[\{"version":(\d{1,18}),"seq":')
_REMOVES = re.compile(rb'"removes":\["([0-9a-z_=@][0-9a-z_-]*\.journal)"\]')


@dataclass(frozen=True, slots=True)
class Lost:
    """What is left of what a commit did to the journal `name`, from its byte `at` on."""

    name: str
    at: int
    text: bytes

    @property
    def aside(self) -> str:
        """What it is kept as, beside the journal."""
        return aside_of(self.name, self.at)

    @property
    def is_removal(self) -> bool:
        """Whether the session may be none any more."""
        return _PUT.match(self.text) is None


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a segment that are no commit, and stand from `at` on before others."""

    epoch: int
    at: int
    data: bytes

    @property
    def name(self) -> str:
        """What they are kept as, beside the segments."""
        return f"commits.{self.epoch}.{self.at}{DAMAGED}"

    def lost(self) -> Iterator[Lost]:
        """What they tell of commits."""
        found = [match for match in _PUT.finditer(self.data) if match[2] == match[4]]
        ends = [*(match.start() for match in found[1:]), len(self.data)]
        for match, end in zip(found, ends, strict=len(found) > 0):
            try:
                name = name_of(msgspec.json.decode(match[1], type=str))
            except msgspec.DecodeError:
                continue
            text = self.data[match.start() : end].partition(b"\n")[0]
            yield Lost(name, int(match[3]), text)
        for match in _REMOVES.finditer(self.data):
            yield Lost(match[1].decode(), 0, match[0])


def aside_of(name: str, at: int) -> str:
    """What frames are kept as that belong into a journal at that byte, and cannot go there."""
    return f"{name}.{at}{UNPLACED}{CUT}"


def is_unplaced(name: str) -> bool:
    """Whether a file beside the journals holds such frames, or what is left of them."""
    return name.endswith(UNPLACED + CUT)


def place_of(aside: str) -> int:
    """The byte of the journal at which they belong."""
    return int(aside.removesuffix(UNPLACED + CUT).rpartition(".")[2])
