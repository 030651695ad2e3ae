"""`moorage prompt` and `moorage attach` as a person at a terminal meets them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from moorage_clients.cli.exits import Exit
from tests.e2e.commands import moorage
from tests.e2e.daemons import DaemonProcess, environment
from tests.e2e.terminals import END, INTERRUPT, Terminal, moorage_in_terminal


Open = Callable[..., AbstractContextManager[Terminal]]


@pytest.fixture
def session(daemon: DaemonProcess, tmp_path: Path) -> str:
    """The last session of the directory."""
    return moorage("new", state_dir=daemon.state_dir, cwd=tmp_path).out.strip()


@pytest.fixture
def open_terminal(daemon: DaemonProcess, tmp_path: Path) -> Open:
    shell = {**environment(), "NO_COLOR": "1"}
    return lambda *words: moorage_in_terminal(
        *words, state_dir=daemon.state_dir, cwd=tmp_path, env=shell
    )


def test_person_prompts_answers_and_cancels_in_an_attachment(
    open_terminal: Open, session: str
) -> None:
    with open_terminal("attach") as terminal:
        terminal.wait_for("Attached.")
        terminal.wait_for("\n> ")

        terminal.type("good morning")
        assert terminal.wait_for("\n> ") == "good morning\ngood morning\n> "

        terminal.type("/run printf 'a\\033[2Jb'")
        terminal.wait_for("Allow it? y / n / always\n")
        terminal.type("y")
        shown = terminal.wait_for("\n> ")
        assert "\x1b" not in shown
        assert "\nab\n" in shown

        terminal.type("/stream 1000000 0.01")
        terminal.wait_for("chunk 5\n")
        terminal.press(INTERRUPT)
        terminal.wait_for("\nCancelling the turn.")
        terminal.wait_for("cancelled (client_rpc)")
        terminal.wait_for("\n> ")

        terminal.press(END)
        assert terminal.ended() == Exit.OK


def test_ctrl_c_leaves_an_attachment_in_which_nothing_runs(
    open_terminal: Open, session: str
) -> None:
    with open_terminal("attach", session[:8]) as terminal:
        terminal.wait_for("\n> ")
        terminal.press(INTERRUPT)

        assert terminal.ended() == Exit.DETACHED


def test_turn_of_somebody_else_is_seen_while_a_line_is_typed(
    open_terminal: Open, session: str, daemon: DaemonProcess, tmp_path: Path
) -> None:
    with open_terminal("attach") as terminal:
        terminal.wait_for("\n> ")
        terminal.press("half a ")
        moorage("prompt", "from elsewhere", state_dir=daemon.state_dir, cwd=tmp_path)
        terminal.wait_for("\n> from elsewhere\nfrom elsewhere\n> ")
        terminal.type("line")

        terminal.wait_for("\nhalf a line\n> ")


def test_question_of_a_prompt_is_answered_where_it_was_asked(
    open_terminal: Open, session: str, tmp_path: Path
) -> None:
    with open_terminal("prompt", "/run echo done > file") as terminal:
        terminal.wait_for("  command: echo done > file\n")
        terminal.wait_for("Allow it? y / n / always\n")
        terminal.type("perhaps")
        terminal.wait_for("Allow it? y / n / always\n")
        terminal.type("always")

        assert terminal.ended() == Exit.OK
    assert (tmp_path / "file").read_text() == "done\n"


def test_what_was_typed_before_a_question_is_no_answer_to_it(
    open_terminal: Open, session: str, tmp_path: Path
) -> None:
    with open_terminal("prompt", "/run touch file") as terminal:
        terminal.type("y")
        terminal.wait_for("Allow it? y / n / always\n")
        terminal.type("n")
        terminal.wait_for("Rejected")

        assert terminal.ended() == Exit.OK
    assert not (tmp_path / "file").exists()


def test_a_session_is_only_deleted_when_the_person_says_yes(
    open_terminal: Open, session: str, daemon: DaemonProcess, tmp_path: Path
) -> None:
    def listed() -> str:
        return moorage("ls", "--json", state_dir=daemon.state_dir, cwd=tmp_path).out

    with open_terminal("delete", session) as terminal:
        terminal.wait_for("y / n\n")
        terminal.type("no")
        terminal.wait_for("Nothing was removed.")
        assert terminal.ended() == Exit.FAILED
    assert session in listed()

    with open_terminal("delete", session) as terminal:
        assert session in terminal.wait_for("y / n\n")
        terminal.type("y")
        terminal.wait_for(f"{session}: removed")
        assert terminal.ended() == Exit.OK
    assert session not in listed()
