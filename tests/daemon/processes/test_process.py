"""What a command gets, what is told of its end, and who can end it."""

import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from moorage_daemon.processes.environment import tool_environment
from moorage_daemon.processes.process import Exit, Exited, Lost, NotStarted, Process, Signalled
from moorage_daemon.processes.spawn import SpawnError, spawn


PYTHON = (sys.executable, "-I", "-S", "-c")

Until = Callable[[Callable[[], bool]], Awaitable[None]]


def start(*argv: str, cwd: Path | int = Path("/"), grace: float = 0.2) -> Process:
    return spawn(argv, cwd=cwd, env=tool_environment(os.environ), grace=grace)


async def run(*argv: str, cwd: Path | int = Path("/")) -> tuple[Exit, str]:
    process = start(*argv, cwd=cwd)
    with trio.fail_after(30):
        async with process.attended():
            return await process.wait(), process.output.text()


async def is_ready(process: Process) -> None:
    while "ready" not in process.output.text():
        assert process.exit is None, process.exit
        await process.more(process.output.total)


async def test_exit_code_and_both_outputs_in_order_are_told() -> None:
    ended, text = await run("sh", "-c", "echo one; echo two >&2; echo three; exit 3")

    assert ended == Exited(3)
    assert text == "one\ntwo\nthree\n"


async def test_signal_that_ended_the_command_is_told() -> None:
    assert await run("sh", "-c", "kill -SEGV $$") == (Signalled(signal.SIGSEGV), "")


async def test_standard_input_is_empty() -> None:
    assert await run("cat") == (Exited(0), "")


async def test_environment_is_what_was_given_and_nothing_else() -> None:
    process = spawn(["env"], cwd=Path("/"), env={"PATH": os.environ["PATH"], "A": "b=c\n"})
    async with process.attended():
        await process.wait()

    assert process.output.text() == f"PATH={os.environ['PATH']}\nA=b=c\n\n"


async def test_arguments_arrive_byte_for_byte() -> None:
    arguments = ["", " ", "'\"", "é", "\udcff", "\n"]
    program = "import sys; sys.stdout.buffer.write(repr(sys.argv[1:]).encode())"

    assert await run(*PYTHON, program, *arguments) == (Exited(0), repr(arguments))


async def test_working_directory_is_a_path_or_a_descriptor(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    by_descriptor = start("pwd", cwd=fd)
    os.close(fd)
    async with by_descriptor.attended():
        await by_descriptor.wait()

    assert by_descriptor.output.text() == f"{tmp_path}\n"
    assert await run("pwd", cwd=tmp_path) == (Exited(0), f"{tmp_path}\n")


async def test_command_is_found_along_the_path_that_it_is_given(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "greet"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)

    for path in (str(program.parent), f"/nowhere:{program.parent}", "bin"):
        process = spawn(["greet"], cwd=tmp_path, env={"PATH": path})
        async with process.attended():
            assert await process.wait() == Exited(0)


async def test_missing_command_differs_from_exit_127() -> None:
    assert await run("sh", "-c", "exit 127") == (Exited(127), "")
    assert await run("no-such-command") == (
        NotStarted("no-such-command: No such file or directory"),
        "",
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/etc/passwd", "Permission denied"),
        ("/", "Permission denied"),
        ("./nothing", "No such file or directory"),
        ("", "No such file or directory"),
    ],
)
async def test_command_that_cannot_run_says_why(command: str, reason: str) -> None:
    assert await run(command) == (NotStarted(f"{command}: {reason}"), "")


async def test_plain_file_on_the_path_is_denied_not_missing(tmp_path: Path) -> None:
    tmp_path.joinpath("notes").write_text("no program")
    process = spawn(["notes"], cwd=Path("/"), env={"PATH": str(tmp_path)})
    async with process.attended():
        assert await process.wait() == NotStarted("notes: Permission denied")


async def test_too_long_a_command_is_not_started() -> None:
    ended, _ = await run("echo", "x" * 1024 * 1024)

    assert ended == NotStarted("echo: Argument list too long")


async def test_vanished_working_directory_is_not_entered(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    fd = os.open(gone, os.O_RDONLY | os.O_DIRECTORY)
    gone.rmdir()
    missing = NotStarted("the working directory: No such file or directory")

    assert await run("true", cwd=gone) == (missing, "")
    assert await run("true", cwd=fd) == (missing, "")
    os.close(fd)


@pytest.mark.parametrize("argv", [[], ["echo", "a\0b"], ["echo", "\ud800"]])
def test_malformed_command_is_refused_at_once(argv: list[str]) -> None:
    with pytest.raises(SpawnError):
        spawn(argv, cwd=Path("/"), env={})


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
def test_malformed_variable_is_refused_at_once(name: str) -> None:
    with pytest.raises(SpawnError):
        spawn(["true"], cwd=Path("/"), env={name: "value"})


@pytest.mark.parametrize("room", range(7))
def test_refusal_by_the_system_leaves_no_descriptor_open(room: int) -> None:
    before = open_descriptors()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, limits[0]), limits[1]))
    hoard = every_free_descriptor()
    for fd in hoard[:room]:
        os.close(fd)
    try:
        with pytest.raises(SpawnError, match="Too many open files"):
            spawn(["true"], cwd=Path("/"), env={})
    finally:
        for fd in hoard[room:]:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert open_descriptors() == before


def every_free_descriptor() -> list[int]:
    hoard: list[int] = []
    with suppress(OSError):
        while True:
            hoard.append(os.dup(0))
    return hoard


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_command_inherits_three_descriptors_only() -> None:
    leaky = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaky, True)
    _, text = await run("ls", "/proc/self/fd")
    os.close(leaky)

    assert text == "0\n1\n2\n3\n"  # 3 is what ls opened to look


async def test_command_begins_with_no_signal_blocked_or_ignored() -> None:
    _, text = await run("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")

    masks = dict(line.split(":\t") for line in text.splitlines())
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) & 0x7FFF_FFFF == 0  # the C library's own two lie above


async def test_neither_command_nor_environment_shows_in_the_supervisor() -> None:
    process = spawn(["sleep", "9.87654"], cwd=Path("/"), env={"SECRET": "hush", **os.environ})
    async with process.attended():
        proc = Path(f"/proc/{process.pid}")

        assert b"9.87654" not in proc.joinpath("cmdline").read_bytes()
        assert b"hush" not in proc.joinpath("environ").read_bytes()


async def test_unpolite_signals_do_not_reach_the_supervisor() -> None:
    script = "for s in TERM INT HUP QUIT PIPE USR1 ALRM; do kill -$s $PPID; done; exit 5"

    assert await run("sh", "-c", script) == (Exited(5), "")


async def test_signal_to_everything_around_stays_inside() -> None:
    assert await run("sh", "-c", "kill -KILL 0") == (Signalled(signal.SIGKILL), "")


async def test_orphans_of_a_running_command_are_reaped_while_it_runs(until: Until) -> None:
    process = start(
        "sh", "-c", "for i in 1 2 3 4 5; do (true & true &); done; echo ready; sleep 60"
    )
    with trio.fail_after(30):
        async with process.attended():
            await is_ready(process)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

            await until(lambda: len(children.read_text().split()) == 1)


async def test_stopped_supervisor_is_woken_by_a_kill() -> None:
    process = start("sh", "-c", "kill -STOP $PPID; echo ready; sleep 60")
    with trio.fail_after(30):
        async with process.attended():
            await is_ready(process)
            process.kill()

            assert await process.wait() == Signalled(signal.SIGKILL)


async def test_command_that_kills_its_supervisor_is_ended_and_called_lost(
    marker: str, marked: Callable[[], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    child = f"env -i {sys.executable} -I -S -c 'import time; time.sleep(60)' {marker}"
    script = f"echo ready; (setsid {child} &) ; kill -KILL $PPID; sleep 60"

    assert await run("sh", "-c", script, marker) == (Lost(), "ready\n")
    assert marked() == []
    assert "a tool's supervisor was killed" in caplog.text


async def test_kill_before_the_start_starts_nothing(tmp_path: Path) -> None:
    for attempt in range(20):  # its supervisor may be quicker than the kill, on a busy machine
        started = tmp_path / f"started-{attempt}"
        process = start("touch", str(started))
        process.kill()
        async with process.attended():
            ended = await process.wait()
        if ended == NotStarted("touch: stopped before it started"):
            assert not started.exists()
            return

    raise AssertionError("it started each time")


async def test_kill_and_terminate_can_be_repeated_at_any_time() -> None:
    process = start("sleep", "60")
    with trio.fail_after(30):
        async with process.attended():
            for _ in range(3):
                process.terminate()
                process.kill()
            await process.wait()
            process.kill()
    process.kill()
    process.terminate()

    assert process.exit is not None


async def test_terminate_lets_the_command_clean_up() -> None:
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('tidy'), sys.exit(7)))\n"
        "os.write(1, b'ready\\n')\n"
        "time.sleep(60)\n"
    )
    process = start(*PYTHON, program, grace=5)
    with trio.fail_after(30):
        async with process.attended():
            await is_ready(process)
            process.terminate()

            assert await process.wait() == Exited(7)
            assert process.output.text() == "ready\ntidy\n"


async def test_terminate_gives_the_child_of_a_dead_shell_its_grace() -> None:
    child = "trap 'sleep 0.1; echo tidy; exit' TERM; echo ready; while :; do sleep 0.02; done"
    process = start("sh", "-c", f"sh -c '{child.replace(chr(39), chr(34))}'; exit 1", grace=5)
    with trio.fail_after(30):
        async with process.attended():
            await is_ready(process)
            process.terminate()
            await process.wait()

    assert process.output.text().endswith("tidy\n")


async def test_terminate_is_followed_by_a_kill_after_the_grace() -> None:
    process = start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done")
    with trio.fail_after(30):
        async with process.attended():
            await is_ready(process)
            process.terminate()

            assert await process.wait() == Signalled(signal.SIGKILL)


async def test_terminate_ends_a_stopped_command() -> None:
    process = start("sh", "-c", "echo ready; kill -STOP $$", grace=5)
    with trio.fail_after(30):
        async with process.attended():
            await is_ready(process)
            process.terminate()

            assert await process.wait() == Signalled(signal.SIGTERM)


async def test_leaving_the_block_ends_the_command() -> None:
    process = start("sleep", "60")
    with trio.fail_after(30):
        async with process.attended():
            pass

    assert process.exit in (
        Signalled(signal.SIGTERM),
        NotStarted("sleep: stopped before it started"),
    )


async def test_error_in_the_block_comes_out_as_it_is() -> None:
    error = LookupError("mine")
    process = start("sleep", "60")
    with trio.fail_after(30), pytest.raises(LookupError) as caught:
        async with process.attended():
            raise error

    assert caught.value is error
    assert process.exit is not None


async def test_cancellation_before_the_block_ends_the_command() -> None:
    process = start("sleep", "60")
    with trio.CancelScope() as scope:
        scope.cancel()
        async with process.attended():
            await trio.sleep_forever()

    assert process.exit is not None


async def test_output_after_a_cancellation_is_still_kept() -> None:
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('x' * 100_000), sys.exit()))\n"
        "os.write(1, b'ready\\n')\n"
        "time.sleep(60)\n"
    )
    process = start(*PYTHON, program, grace=3)
    with trio.fail_after(30):
        with trio.CancelScope() as scope:
            async with process.attended():
                await is_ready(process)
                scope.cancel()
                await process.wait()

    assert process.exit == Exited(0)
    assert process.output.total == len("ready\n") + 100_001


async def test_progress_can_be_watched_while_the_command_runs() -> None:
    process = start("sh", "-c", "echo one; sleep 0.02; echo two; sleep 60")
    with trio.fail_after(30):
        async with process.attended():
            await process.more(0)
            first = process.output.tail()
            await process.more(len("one\n"))
            second = process.output.tail()

    assert (first, second) == ("one\n", "one\ntwo\n")


async def test_waiting_for_more_returns_at_the_end() -> None:
    process = start("true")
    with trio.fail_after(30):
        async with process.attended():
            await process.more(0)

            assert process.exit == Exited(0)


async def test_end_of_a_flood_is_kept() -> None:
    for _ in range(5):
        ended, text = await run("sh", "-c", "head -c 2000000 /dev/zero; echo the end")

        assert ended == Exited(0)
        assert text.endswith("\0the end\n")


async def test_flood_is_counted_and_not_kept() -> None:
    process = start("yes")
    with trio.fail_after(30):
        async with process.attended():
            await process.more(4 * 1024 * 1024)
            process.kill()
            await process.wait()

    text = process.output.text()
    assert process.output.left_out > 3 * 1024 * 1024
    assert len(text) < 65 * 1024
    assert text.startswith("y\ny\n")
    assert f"[... {process.output.left_out:,} bytes left out ...]" in text


async def test_reader_of_a_flood_lets_others_run() -> None:
    process = start("yes")
    turns = 0
    with trio.fail_after(30):
        async with process.attended():
            while process.output.total < 4 * 1024 * 1024:
                await trio.lowlevel.checkpoint()
                turns += 1

    assert turns > 64  # one at least for each piece of 64 KiB


async def test_many_commands_at_once_leave_no_descriptor_open() -> None:
    await run("true")
    before = open_descriptors()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(run, "true")

    assert open_descriptors() == before
