"""Colours, where there is somebody to see them and nobody has asked for none.

`NO_COLOR` beats `FORCE_COLOR` and `CLICOLOR_FORCE`, which beat everything else; `CLICOLOR=0` and a
dumb terminal mean none, and so does whatever is no terminal (no-color.org, force-color.org,
bixense.com/clicolors). Only our own words are coloured, never what an agent said.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TextIO


class Style(StrEnum):
    """What a text is to a person, as the terminal's attributes (SGR)."""

    PLAIN = ""
    FAINT = "2"  # beside the matter
    STRONG = "1"
    GOOD = "32"
    CAREFUL = "33"
    BAD = "31"
    ASKING = "1;33"


def wants_colour(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Whether what goes to `stream` is to be coloured."""
    if env.get("NO_COLOR"):
        return False
    if any(env.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    if env.get("CLICOLOR") == "0" or env.get("TERM") == "dumb":
        return False
    return stream.isatty()


def painted(text: str, style: Style) -> str:
    """The text in that style; line by line, as a pager shows lines by themselves."""
    if style is Style.PLAIN:
        return text
    return "\n".join(f"\x1b[{style}m{line}\x1b[0m" if line else "" for line in text.split("\n"))
