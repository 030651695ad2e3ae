"""A tour of moorage, against a daemon of its own: what is shown is really done.

Every step is checked; the first that does not hold ends the tour with exit code 1.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn


MOORAGE = str(Path(sys.executable).with_name("moorage"))
PATIENCE = 30.0  # seconds for any single step, on a slow machine


def main() -> None:
    """Take the tour."""
    with tempfile.TemporaryDirectory(prefix="moorage-demo-") as folder:
        work = Path(folder) / "project"
        work.mkdir()
        os.environ["MOORAGE_STATE_DIR"] = str(Path(folder) / "state")
        os.environ.pop("MOORAGE_CONFIG", None)
        os.chdir(work)
        try:
            tour()
        finally:
            subprocess.run([MOORAGE, "daemon", "stop"], check=False, capture_output=True)


def tour() -> None:
    """The steps, in order."""
    title("A daemon, and a session in it")
    show(["daemon", "start"])
    session = show(["new"]).strip()

    title("A prompt, streamed")
    expect("Good morning", show(["prompt", "Good morning, agent. Nobody else is awake."]))

    title("A tool, after asking (here the answer is given beforehand)")
    show(["prompt", "--allow", "/run date > seen.txt && wc -l seen.txt"])
    if not Path("seen.txt").exists():
        fail("the command did not run")

    title("The terminal is gone in mid-turn, and the turn runs on")
    seen = lose_the_terminal(session)
    print(f"  (the terminal died after {seen} of 30 chunks)")

    title("Another terminal comes, and gets all of it, once and in order")
    chunks = wait_for_all(session)
    print(f"  moorage log {session[:4]} has chunks 1 to {chunks[-1]}")
    if chunks != list(range(1, 31)):
        fail(f"the log has {chunks}")

    title("A turn is cancelled, with its cause on record")
    cancelled = start(["prompt", "/sleep 600"])
    wait_until_running(session)
    show(["cancel", session[:8]])
    if cancelled.wait(PATIENCE) != 5:
        fail("the prompt did not end as cancelled")

    title("A session is killed, and every process of it is gone")
    start(["prompt", "--allow", "/run sleep 31415"])
    wait_for(lambda: processes("sleep 31415") > 0, "the command to start")
    show(["kill", session[:8], "--reason", "it ran away"])
    wait_for(lambda: processes("sleep 31415") == 0, "its processes to end")
    show(["ls", "--all"])
    print("\nThat was moorage. Its README goes on from here.")


# ---- the steps' tools


def title(text: str) -> None:
    """Say what comes."""
    print(f"\n== {text}", flush=True)


def show(arguments: Sequence[str]) -> str:
    """Run a command as a person would, showing it and what it prints."""
    print(f"$ moorage {shlex.join(arguments)}", flush=True)
    done = subprocess.run(
        [MOORAGE, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    for line in (done.stdout + done.stderr).splitlines():
        print(f"  {line}", flush=True)
    if done.returncode != 0:
        fail(f"it ended with exit code {done.returncode}")
    return done.stdout


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command that is left to itself."""
    print(f"$ moorage {shlex.join(arguments)} &", flush=True)
    return subprocess.Popen(
        [MOORAGE, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )


def lose_the_terminal(session: str) -> int:
    """Watch a turn for a moment, then kill the watching command; gives the chunks it saw."""
    command = ["prompt", session[:8], "/stream 30 0.1"]
    print(f"$ moorage {shlex.join(command)}", flush=True)
    watching = subprocess.Popen([MOORAGE, *command], stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    seen = 0
    for line in watching.stdout:
        print(f"  {line.rstrip()}", flush=True)
        seen += 1
        if seen == 5:
            break
    watching.send_signal(signal.SIGKILL)
    watching.wait()
    return seen


def wait_for_all(session: str) -> list[int]:
    """The chunks in the log, once the turn has ended."""
    wait_for(lambda: row_of(session)["state"] == "idle", "the turn to end")
    log = subprocess.run(
        [MOORAGE, "--json", "log", session], capture_output=True, text=True, check=True
    )
    text = ""
    for line in log.stdout.splitlines():
        entry: dict[str, Any] = json.loads(line)
        update: dict[str, Any] = entry.get("update", {})
        if update.get("sessionUpdate") == "agent_message_chunk":
            text += str(update["content"]["text"])
    return [int(line.removeprefix("chunk ")) for line in text.splitlines() if "chunk " in line]


def row_of(session: str) -> dict[str, Any]:
    """The session as it is listed."""
    listed = subprocess.run(
        [MOORAGE, "--json", "ls", "--all"], capture_output=True, text=True, check=True
    )
    found: dict[str, list[dict[str, Any]]] = json.loads(listed.stdout)
    return next(live_row(row) for row in found["sessions"] if row["sessionId"] == session)


def live_row(row: dict[str, Any]) -> dict[str, Any]:
    """The part of a listed session that says what it is doing."""
    told: dict[str, Any] = row.get("_meta", {}).get("moorage", row)
    return told


def wait_until_running(session: str) -> None:
    """Wait until a turn is at work."""
    wait_for(lambda: row_of(session)["state"] == "running", "the turn to begin")


def processes(command: str) -> int:
    """How many processes have that command line."""
    wanted = command.replace(" ", "\0").encode()
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found += (folder / "cmdline").read_bytes().rstrip(b"\0") == wanted
        except OSError:
            continue  # it has just ended
    return found


def wait_for(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            fail(f"waited too long for {what}")
        time.sleep(0.1)  # noqa: TID251 - a plain script


def expect(text: str, output: str) -> None:
    """Check what a command printed."""
    if text not in output:
        fail(f"{text!r} was expected")


def fail(problem: str) -> NoReturn:
    """End the tour."""
    print(f"demo: {problem}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
