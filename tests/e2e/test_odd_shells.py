"""The command where something about its caller is odd: streams, words, directories, signals."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage_clients.cli.exits import Exit
from tests.e2e.commands import MOORAGE, PATIENCE, Ended, moorage
from tests.e2e.daemons import DaemonProcess, environment


InShell = Callable[[str], Ended]


@pytest.fixture
def in_shell(daemon: DaemonProcess, tmp_path: Path) -> InShell:
    """Run a line of bash in which `$moorage` is the command, with a session in its directory."""
    assert moorage("new", state_dir=daemon.state_dir, cwd=tmp_path).code == Exit.OK
    command = f"moorage() {{ {MOORAGE[0]} -c '{MOORAGE[2]}' \"$@\"; }}\n"

    def run(line: str) -> Ended:
        ended = subprocess.run(
            ["bash", "-c", command + line], capture_output=True, text=True, check=False,
            env={**environment(), "MOORAGE_STATE_DIR": str(daemon.state_dir)}, cwd=tmp_path,
            stdin=subprocess.DEVNULL, timeout=PATIENCE,
        )  # fmt: skip
        assert "Traceback" not in ended.stderr
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


def test_closed_streams_are_no_reason_to_fail(in_shell: InShell) -> None:
    assert in_shell("moorage prompt hello 2>&-").out == "hello\n"
    assert in_shell("moorage prompt hello <&- >&- 2>&-") == Ended(Exit.OK, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("words", ["ls", "daemon status", "config show"])
def test_output_that_cannot_be_written_is_told(in_shell: InShell, words: str) -> None:
    assert in_shell(f"moorage {words} > /dev/full") == Ended(
        Exit.FAILED, "", "moorage: No space left on device\n"
    )


@pytest.mark.parametrize("words", ["prompt $'a\\xffb'", "kill --all --reason $'\\xff'"])
def test_words_that_are_no_text_are_refused(in_shell: InShell, words: str) -> None:
    found = in_shell(f"moorage {words}")

    assert found.code == Exit.USAGE
    assert "no UTF-8 text" in found.err


def test_prompt_beyond_what_a_daemon_takes_is_refused_before_it_is_sent(
    in_shell: InShell,
) -> None:
    found = in_shell("head -c 8400000 /dev/zero | tr '\\0' x | moorage prompt -")

    assert found.code == Exit.USAGE
    assert "8 MiB are the most" in found.err


def test_directory_that_was_removed_is_told(in_shell: InShell) -> None:
    gone = "mkdir gone; cd gone; rmdir ../gone; moorage"

    assert "not there any more" in in_shell(f"{gone} prompt hello").err
    assert "not there any more" in in_shell(f"{gone} new").err
    assert in_shell(f"{gone} ls").code == Exit.OK


def test_reader_that_has_enough_ends_a_prompt_quietly(in_shell: InShell) -> None:
    found = in_shell("moorage prompt '/stream 2000 0' | head -1; exit ${PIPESTATUS[0]}")

    assert found == Ended(Exit.OK, "chunk 1\n", "")


@pytest.mark.parametrize("words", ["ls", "status", "doctor", "log"])
def test_ctrl_c_while_a_daemon_does_not_answer_leaves_without_a_trace(
    daemon: DaemonProcess, tmp_path: Path, words: str
) -> None:
    """The daemon takes connections, as its kernel does that for it, and answers nothing."""
    daemon.signal(signal.SIGSTOP)
    try:
        with subprocess.Popen(
            [*MOORAGE, words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
            env={**environment(), "MOORAGE_STATE_DIR": str(daemon.state_dir)},
            stdin=subprocess.DEVNULL, text=True, preexec_fn=_hear_ctrl_c,
        ) as process:  # fmt: skip
            try:
                _wait_for_socket(process.pid)
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
    finally:
        daemon.signal(signal.SIGCONT)

    assert (process.returncode, said) == (Exit.DETACHED, "")


def _hear_ctrl_c() -> None:
    """In the child: tests that run in a shell's background inherit that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait_for_socket(pid: int) -> None:
    """Wait until the process has a connection that it waits on."""
    while not any(_is_socket(link) for link in Path(f"/proc/{pid}/fd").iterdir()):
        os.sched_yield()


def _is_socket(link: Path) -> bool:
    try:
        return str(link.readlink()).startswith("socket:")
    except FileNotFoundError:  # closed meanwhile
        return False
