"""Runs the commands that rules allow under a trace of execve, and looks for programs not allowed.

The rules and commands are those of the tests: hundreds that try to start a program called
`intruder`. What the rules allow is run for real, each in a fresh copy of a small workspace, and
every program that was started is one of those the rules name, the shell, or a helper that such a
program brings along. The control runs what a rule allows that only compares beginnings.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import trio

from moorage_daemon.grants.calls import Call, Shell
from moorage_daemon.grants.credentials import filled_for_shell
from moorage_daemon.grants.policy import Policy, Say
from moorage_protocol.config import Permissions
from scripts.torture.report import CannotRun, Program, Report, run
from tests.daemon.grants.commands import (
    ALLOW,
    ALLOWED_PROGRAMS,
    FILLED,
    HONEST,
    HONEST_FILLED,
    HOSTILE,
    HOSTILE_FILLED,
    SECRET,
)


PROGRAM = Program("commands", __doc__, rounds=1, quick_rounds=1)

LIMIT = 10.0  # seconds for one command
HELPERS = {"bzip2", "gzip", "xz", "zstd", "dash", "mawk", "gawk", "original-awk", "python3"}
STARTED = re.compile(r'^execve(?:at)?\((?:[^"]*)"((?:[^"\\]|\\.)*)".*\) = 0$', re.MULTILINE)
INTRUDER = "#!/bin/sh\nexit 0\n"


def make_workspace(place: Path) -> Path:
    """A directory in which every command of the corpus has something to work on."""
    workspace = place / "workspace"
    (workspace / "src").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "src/c.txt"):
        (workspace / name).write_text("foo 1\nbar 2\nbaz 3\n")
    _programs(workspace)
    environment = environment_in(place)
    for command in (
        "git init -q -b main",
        "git config user.email me@localhost",
        "git config user.name Me",
        "git add a.txt b.txt src",
        "git commit -q -m first",
        "tar -cf list.tar a.txt b.txt",
    ):
        subprocess.run(["sh", "-c", command], cwd=workspace, env=environment, check=True)
    return workspace


def _programs(workspace: Path) -> None:
    path = workspace.parent / "bin"
    path.mkdir(exist_ok=True)
    for intruder in (path / "intruder", workspace / "intruder"):
        intruder.write_text(INTRUDER)
        intruder.chmod(0o755)


def environment_in(place: Path) -> dict[str, str]:
    """What a command sees: nothing of the person who runs this."""
    return {
        "PATH": f"{place / 'bin'}:/usr/bin:/bin",
        "HOME": str(place),
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
    }


async def programs_of(place: Path, command: str, *names: str) -> set[str]:
    """The names of all programs that were started for a command, in a copy of the workspace.

    Credentials of those names are filled in as the daemon does it.
    """
    command, variables = filled_for_shell(command, dict.fromkeys(names, SECRET))
    here = place / "here"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(place / "workspace", here, symlinks=True)
    traces = place / "traces"
    shutil.rmtree(traces, ignore_errors=True)
    traces.mkdir()
    traced = ["strace", "-ff", "-qq", "-e", "trace=execve,execveat", "-o", str(traces / "of")]
    with trio.move_on_after(LIMIT):
        await trio.run_process(
            [*traced, "sh", "-c", command],
            stdin=b"",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=here,
            env=environment_in(place) | variables,
        )
    return set(_started(traces))


def _started(traces: Path) -> Iterator[str]:
    for trace in traces.iterdir():
        for path in STARTED.findall(trace.read_text(errors="replace")):
            yield path.rpartition("/")[2]


async def _is_fooled(place: Path) -> bool:
    """Whether the secret starts the intruder where it is read as shell text."""
    return "intruder" in await programs_of(place, f"echo {SECRET}")


def is_allowed(program: str) -> bool:
    """Whether a rule names it, or it belongs to one that a rule names."""
    return program in {*ALLOWED_PROGRAMS, *HELPERS} or program.startswith("git-")


def naive(command: str) -> bool:
    """What a rule allows that only compares beginnings."""
    return command.startswith(ALLOWED_PROGRAMS)


def can_start(command: str) -> bool:
    """Whether a shell can be given it at all."""
    return "\0" not in command and len(os.fsencode(command)) < 2**17


async def torture(report: Report) -> None:
    """Run all that the rules allow, then what a naive rule would."""
    if shutil.which("strace") is None:
        raise CannotRun("there is no strace")
    make_workspace(report.work)
    if "true" not in await programs_of(report.work, "env true"):
        raise CannotRun("strace may not trace here")
    policy = Policy(Permissions(allow=ALLOW))
    corpus = (*HONEST, *HOSTILE)
    allowed = [c for c in corpus if policy.rule(Call("Bash", Shell(c))).say is Say.ALLOW]
    report.check(set(HONEST) <= set(allowed), "an honest command was not allowed")
    filled = [
        command
        for command in (*HONEST_FILLED, *HOSTILE_FILLED)
        if policy.rule(Call("Bash", Shell(command, FILLED))).say is Say.ALLOW
    ]
    report.check(set(HONEST_FILLED) <= set(filled), "an honest credential was not allowed")
    started: set[str] = set()
    for _ in range(report.rounds):
        for command in (*allowed, *filled):
            programs = await programs_of(report.work, command, *FILLED)
            strange = sorted(program for program in programs if not is_allowed(program))
            report.check(not strange, f"{command!r} started {strange}")
            started |= programs
    count = len(allowed) + len(filled)
    report.say(f"{count} commands allowed, {len(started)} programs started")
    fooled = [c for c in HOSTILE if "intruder" in c and naive(c) and can_start(c)]
    caught = 0
    for command in fooled:
        programs = await programs_of(report.work, command)
        caught += any(not is_allowed(program) for program in programs)
    report.control("a shell that reads the secret", await _is_fooled(report.work))
    report.control("a rule that only compares beginnings", caught > len(fooled) // 4)
    report.figures |= {
        "commands": len(corpus),
        "hostile": len(HOSTILE),
        "allowed": len(allowed),
        "allowed_with_credentials": len(filled),
        "programs_started": sorted(started),
        "naive_rule_allows": len(fooled),
        "of_these_started_another": caught,
    }


if __name__ == "__main__":
    run(PROGRAM, torture)
