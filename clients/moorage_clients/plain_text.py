"""Text of others made fit for a terminal: what is shown is text, never an instruction.

An agent, a file or a branch may hold escape sequences that move the cursor over a permission
question, set the clipboard, or answer on the user's keyboard. Whatever a terminal acts on is taken
out, with the whole of its sequence, and so is what reorders or hides text. What is left is
printable text, newlines and tabs. The states are those of the VT500 parser (Paul Williams, DEC
ANSI parser), joined where they differ only in what the terminal would do.
"""

import re
from enum import Enum, auto


MAX_SEQUENCE = 4096  # characters; a sequence that never ends swallows no more than this

# BiDi overrides and isolates reorder what is shown; the others are invisible or end a line for some
# programs. Joiners and variation selectors stay: scripts and emoji are written with them.
_HIDDEN = (
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
)
_SPECIAL = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_HIDDEN}\ud800-\udfff]")


class _State(Enum):
    TEXT = auto()
    RETURN = auto()  # after a carriage return, which was shown as a newline
    ESCAPE = auto()
    CONTROL = auto()  # in a CSI sequence
    STRING = auto()  # in an OSC, DCS, SOS, PM or APC string


# Where a character leads from every state: the introducers of ECMA-48, in 7 and 8 bits.
_ANYWHERE = {
    "\x1b": _State.ESCAPE,
    "\x9b": _State.CONTROL,
    "\r": _State.RETURN,
    **dict.fromkeys("\x90\x98\x9d\x9e\x9f", _State.STRING),
    **dict.fromkeys("\n\x18\x1a\x9c", _State.TEXT),
}
_AFTER_ESCAPE = {"[": _State.CONTROL, **dict.fromkeys("PX^_]", _State.STRING)}


class PlainText:
    """Filters one stream of text that arrives in pieces, cut anywhere.

    The pieces give together what the whole would give at once.
    """

    def __init__(self) -> None:
        self._state = _State.TEXT
        self._length = 0  # of the sequence that is being skipped

    def feed(self, text: str) -> str:
        """Take the next piece; gives what of it is to be shown."""
        shown: list[str] = []
        position = 0
        while position < len(text):
            if self._state is _State.TEXT:
                found = _SPECIAL.search(text, position)
                end = found.start() if found else len(text)
                shown.append(text[position:end])
                if found is None:
                    break
                position = end
            shown.append(self._step(text[position]))
            position += 1
        return "".join(shown)

    def _step(self, character: str) -> str:
        """Take one character; gives what is shown for it."""
        if character in _ANYWHERE:
            was, self._state = self._state, _ANYWHERE[character]
            self._length = 0
            is_line = character == "\r" or (character == "\n" and was is not _State.RETURN)
            return "\n" if is_line else ""
        self._length += 1
        if self._length > MAX_SEQUENCE:
            self._state = _State.TEXT
        match self._state:
            case _State.ESCAPE:
                return self._escaped(character)
            case _State.CONTROL if " " <= character <= "?" or character < " ":
                return ""
            case _State.CONTROL if "@" <= character <= "~":
                self._state = _State.TEXT
                return ""
            case _State.STRING:
                if character == "\a":
                    self._state = _State.TEXT
                return ""
            case _:
                return self._text(character)

    def _escaped(self, character: str) -> str:
        if " " <= character <= "/" or character < " ":
            return ""
        if not "0" <= character <= "~":
            return self._text(character)
        self._state = _AFTER_ESCAPE.get(character, _State.TEXT)
        self._length = 0
        return ""

    def _text(self, character: str) -> str:
        self._state = _State.TEXT
        return "" if _SPECIAL.match(character) else character


def plain(text: str) -> str:
    """The whole of a text, without anything a terminal would act on."""
    return PlainText().feed(text)


def one_line(text: str, width: int) -> str:
    """A name or title on one line, cut to `width` characters with an ellipsis."""
    line = " ".join(plain(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def visible(text: str) -> str:
    """A text with everything in it to be seen: what does not print stands as its escape.

    For questions that a person decides by what they read. `str.isprintable` knows no control,
    format, private or unassigned character and no space but the one.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def counted(number: int, thing: str) -> str:
    """So many of a thing, in English."""
    many = f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{number} {thing if number == 1 else many}"
