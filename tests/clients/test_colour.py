"""When the command's own words are coloured, and how."""

import io

import pytest

from moorage_clients.cli.colour import Style, painted, wants_colour
from moorage_clients.cli.screen import Channel, Screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("env", "on_a_terminal", "in_a_pipe"),
    [
        ({}, True, False),
        ({"TERM": "xterm"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}, False, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "3", "TERM": "dumb"}, True, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"FORCE_COLOR": ""}, True, False),
        ({"CLICOLOR": "0"}, False, False),
        ({"CLICOLOR": "1"}, True, False),
        ({"CLICOLOR": "0", "CLICOLOR_FORCE": "1"}, True, True),
        ({"CLICOLOR_FORCE": "0"}, True, False),
    ],
)
def test_who_asked_for_colours_or_for_none_is_heard(
    env: dict[str, str], on_a_terminal: bool, in_a_pipe: bool
) -> None:
    assert wants_colour(Terminal(), env) is on_a_terminal
    assert wants_colour(io.StringIO(), env) is in_a_pipe


def test_each_line_is_coloured_by_itself_and_none_that_is_empty() -> None:
    assert painted("a\n\nb\n", Style.BAD) == "\x1b[31ma\x1b[0m\n\n\x1b[31mb\x1b[0m\n"
    assert painted("a", Style.PLAIN) == "a"


def test_notes_are_coloured_and_what_an_agent_said_is_not() -> None:
    words, notes = io.StringIO(), io.StringIO()
    screen = Screen(Channel(words, has_colours=True), Channel(notes, has_colours=True))

    screen.say("what it said")
    screen.note("beside it", Style.CAREFUL)
    screen.say(" goes on")

    assert words.getvalue() == "what it said goes on"
    assert notes.getvalue() == "\x1b[33mbeside it\x1b[0m\n"


def test_coloured_line_is_ended_as_any_other() -> None:
    notes = io.StringIO()
    channel = Channel(notes, has_colours=True)
    screen = Screen(Channel(io.StringIO()), channel)

    screen.note("beside it", Style.BAD)

    assert not channel.is_open
