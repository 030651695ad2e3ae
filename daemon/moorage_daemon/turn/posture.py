"""What the posture of a session makes of a tool call: it runs, it is asked for, or it is refused.

Nothing is remembered, looked up or awaited here: the same call in the same posture always has the
same ruling. What else has a say in a call stands beside this and is as plain.
"""

import os.path
from collections.abc import Iterable
from enum import IntEnum
from pathlib import PurePosixPath
from typing import assert_never

import msgspec

from moorage_protocol.acp import ToolCallLocation, ToolKind
from moorage_protocol.moorage import Posture


GIT = ".git"
READING = frozenset({ToolKind.READ, ToolKind.SEARCH, ToolKind.THINK})  # nothing is other after it


class Deed(msgspec.Struct, frozen=True):
    """A tool call as far as it matters here.

    `asks` is the tool's own wish; `is_inside` says that it touches files, all of the workspace.
    """

    kind: ToolKind
    asks: bool
    is_inside: bool = False


class Unasked(msgspec.Struct, frozen=True):
    """It runs; `why` is the word for it in the record."""

    why: str


class Asked(msgspec.Struct, frozen=True):
    """A person decides; `each_time` even where one has allowed it for good."""

    each_time: bool = False


class Refused(msgspec.Struct, frozen=True):
    """It does not run; `code` is the word for it in the record, `line` what the user reads."""

    code: str
    line: str


Ruling = Unasked | Asked | Refused


class Leave(IntEnum):
    """What a decision to start a call rests on."""

    UNASKED = 0  # nobody had to be asked
    ALWAYS = 1  # somebody has allowed it for good
    ANSWERED = 2  # somebody was asked about this very call

    def covers(self, ruling: Ruling) -> bool:
        """Whether the decision still holds where this is the ruling meanwhile."""
        match ruling:
            case Unasked():
                return True
            case Asked(each_time):
                return self >= (Leave.ANSWERED if each_time else Leave.ALWAYS)
            case Refused():
                return False
            case _:
                assert_never(ruling)


NOT_ASKED = Unasked("not_asked")
AUTO_EDIT = Unasked("auto_edit")
ASKS_AGAIN = Refused(
    "asks", "Not done: meanwhile this has to be asked about. Call it again to have it asked."
)
READ_ONLY = Refused(
    "read_only", "Not done: the session is read-only. Switch its mode to Ask to allow this."
)


def rule(posture: Posture, deed: Deed) -> Ruling:
    """Whether that may be done in that posture."""
    as_the_tool_wants = Asked() if deed.asks else NOT_ASKED
    match posture:
        case Posture.ASK:
            return as_the_tool_wants
        case Posture.AUTO_EDIT:
            is_edit = deed.kind is ToolKind.EDIT and deed.is_inside
            return AUTO_EDIT if is_edit else as_the_tool_wants
        case Posture.READ_ONLY:
            return as_the_tool_wants if deed.kind in READING else READ_ONLY
        case _:
            assert_never(posture)


def lie_inside(cwd: str, locations: Iterable[ToolCallLocation]) -> bool:
    """Whether there are files, all beneath `cwd`, by their names.

    Where a link leads is for whoever opens them to see. What is git's own does not count: an edit
    there (hooks, `config`) is a command that the next call of git runs.
    """
    root = PurePosixPath(os.path.normpath(cwd))
    paths = [PurePosixPath(os.path.normpath(location.path)) for location in locations]
    return bool(paths) and all(_is_inside(root, path) for path in paths)


def _is_inside(root: PurePosixPath, path: PurePosixPath) -> bool:
    if root not in path.parents:
        return False
    return GIT not in (name.lower() for name in path.relative_to(root).parts)
