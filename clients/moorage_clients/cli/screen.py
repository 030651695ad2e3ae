"""Where a command writes: what was asked for to stdout, all else to stderr.

So `moorage prompt … > answer.txt` holds the agent's words and nothing else, while a person still
sees what goes on. On a terminal both are one text, and a line is ended before the other begins.
"""

import json
import os
import sys
from dataclasses import dataclass, field
from typing import TextIO

import msgspec

from moorage_clients.cli.colour import Style, painted, wants_colour


@dataclass(eq=False)
class Channel:
    """One of the two streams; `is_open` while its last line has no end yet."""

    stream: TextIO
    is_open: bool = False
    has_colours: bool = False

    def paint(self, text: str, style: Style) -> str:
        """The text as it is to be written here."""
        return painted(text, style) if self.has_colours else text

    def write(self, text: str) -> None:
        """Write a piece of text and have it seen."""
        if text:
            self.stream.write(text)
            self.stream.flush()
            self.is_open = not text.endswith("\n")

    def end_line(self) -> None:
        """End the line that is open."""
        if self.is_open:
            self.write("\n")


@dataclass(eq=False)
class Screen:
    """Both streams of a command."""

    words: Channel = field(default_factory=lambda: Channel(sys.stdout))
    notes: Channel = field(default_factory=lambda: Channel(sys.stderr))

    def say(self, text: str) -> None:
        """Write a piece of what was asked for."""
        self.notes.end_line()
        self.words.write(text)

    def remark(self, text: str, style: Style = Style.FAINT) -> None:
        """Write a piece of a line beside it."""
        self._make_room()
        self.notes.write(self.notes.paint(text, style))

    def note(self, line: str, style: Style = Style.FAINT) -> None:
        """Write a line beside it."""
        self._make_room()
        self.notes.end_line()
        self.notes.write(self.notes.paint(line, style) + "\n")

    def invite(self) -> None:
        """Show a person at a terminal that they can type, once."""
        self.words.end_line()
        if not self.notes.is_open:
            self.notes.write("> ")

    def was_typed_on(self) -> None:
        """A person ended the line themselves: the terminal showed it."""
        self.notes.is_open = False

    def was_interrupted(self) -> None:
        """A person pressed Ctrl-C: a terminal shows that and leaves the line open."""
        if self.notes.stream.isatty():
            self.notes.is_open = True

    def _make_room(self) -> None:
        """End the agent's line for a person's eyes; a file gets its words unbroken."""
        if self.words.stream.isatty():
            self.words.end_line()

    def end(self) -> None:
        """End the lines that are open."""
        self.words.end_line()
        self.notes.end_line()

    def document(self, value: object) -> None:
        """Write a value, a struct or builtins, as one line of JSON.

        All of it in ASCII: what an agent said does not get at a terminal this way either.
        """
        builtins: object = json.loads(msgspec.json.encode(value))
        self.words.write(json.dumps(builtins, separators=(",", ":")) + "\n")


def open_screen() -> Screen:
    """The process's own screen; what its encoding cannot write becomes a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr, unused-ignore]
    words, notes = (
        Channel(stream, has_colours=wants_colour(stream, os.environ))
        for stream in (sys.stdout, sys.stderr)
    )
    return Screen(words, notes)
