"""A tool call as rules see it: the tool's name, and what the call is about."""

import os.path
import unicodedata
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from moorage_daemon.grants.shell import plain_words
from moorage_daemon.grants.touching import Reading, reading_of, reading_of_words


MAX_NAME = 200  # characters of a tool's name


@dataclass(frozen=True)
class Shell:
    """A command that a shell reads; `filled` are the credentials whose references are filled in.

    However many rules look at it, it is read once.
    """

    command: str
    filled: tuple[str, ...] = ()

    @cached_property
    def words(self) -> tuple[str, ...] | None:
        """Its words, None if it is more than words."""
        return plain_words(self.command, self.filled)

    @cached_property
    def reading(self) -> Reading:
        """The commands it could start."""
        return reading_of(self.command)


@dataclass(frozen=True)
class Argv:
    """A program and its arguments, started without a shell."""

    words: tuple[str, ...]

    @cached_property
    def reading(self) -> Reading:
        """The command that it is."""
        return reading_of_words(self.words)


@dataclass(frozen=True, slots=True)
class File:
    """A file or a directory, by all its names.

    `inside` are its names below the workspace, "." for that itself: as it was written and, where
    somebody looked, as it resolves. None of them if one leads out. `names` are those and the
    absolute ones. `path` is the absolute one to the letter: behind a link `..` leads elsewhere than
    its text says.
    """

    inside: tuple[str, ...]
    names: tuple[str, ...]
    path: str = field(default="", compare=False)


class Words(msgspec.Struct, frozen=True):
    """Anything else: an address, an agent's name, a query."""

    text: str


Subject = Shell | Argv | File | Words


class Call(msgspec.Struct, frozen=True):
    """One call; without a subject nothing is known beside the tool."""

    tool: str
    subject: Subject | None = None


def file_at(cwd: str, path: str, resolved: str | None = None) -> File:
    """The file that `path` names in a workspace; `resolved` is where its links end, if known."""
    root = os.path.normpath(cwd)
    given = path if path.startswith("/") else f"{root}/{path}"
    found = [(os.path.normpath(given), root)]
    if resolved is not None:
        found.append((os.path.normpath(resolved), os.path.realpath(root)))
    inside = [_below(absolute, directory) for absolute, directory in found]
    kept = () if None in inside else tuple(dict.fromkeys(name for name in inside if name))
    names = dict.fromkeys([*kept, *(absolute for absolute, _ in found)])
    return File(kept, tuple(names), given)


def with_links(cwd: str, file: File) -> File:
    """A file that was only known as it was written, with where its links end.

    That means looking, which may take long where the disk is far away. What no file can be called
    leads nowhere, and nothing opens it.
    """
    try:
        resolved = os.path.realpath(file.path)
    except ValueError:
        return file
    return file_at(cwd, file.path, resolved)


def _below(path: str, root: str) -> str | None:
    if path == root:
        return "."
    return path.removeprefix(root + "/") if path.startswith(root.rstrip("/") + "/") else None


def composed(text: str) -> str:
    """The text with its accents composed: two spellings of one name become one."""
    return unicodedata.normalize("NFC", text)
