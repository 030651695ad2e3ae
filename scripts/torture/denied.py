"""Has two shells run what a rule that denies lets pass, and looks for the program it denies.

The texts are made of pieces that shells read in their own ways: quotes and brackets opened and not
closed, here-documents, comments, substitutions in one another. Of all that is allowed where
everything is but `intruder`, nothing may start that in dash or bash. The control looks at the first
word behind each separator.
"""

import re
import shutil
from pathlib import Path

import trio

from moorage_daemon.grants.calls import Call, Shell
from moorage_daemon.grants.policy import Policy, Say
from moorage_protocol.config import PermissionDefault, Permissions
from scripts.torture.report import CannotRun, Program, Report, run


PROGRAM = Program("denied", __doc__, rounds=100_000, quick_rounds=10_000)

SHELLS = ("dash", "bash")
LIMIT = 5.0  # seconds for one text
CONTROLS = 200  # texts that the control lets pass
STARTS = ("intruder", "intruder x", "$(intruder)", "`intruder`", "; intruder;", "\nintruder\n")
PIECES = (
    *("echo ", "echo a", "cat <<E\n", "cat <<'E'\n", "<<-E\n", "\nE\n", "'", '"', "\\", "`"),
    *("$(", ")", "((", "))", "$((", "${x:-", "${x#", "}", "# ", "#", " ", "\n", "|", "&", "&&"),
    *("<", "<(", ">", "> f", "2>&1", ">&", "&>", "|&", "<<<", "case x in x) ", "esac", "{ "),
    *("if :; then ", "fi", "f() ", "$'", "\\'", '\\"', "\\`", "\\\n", "[[ ", "]]", "x=", "$x"),
    *("alias e=", "e", "a", "-", "\r", "\t", "!", "*", "~", "for i in 1; do "),
    *("done", "$", "time ", "eval ", "exec ", "coproc ", "| xargs ", "env ", "sh -c "),
)
POLICY = Policy(Permissions(deny=("Bash(intruder:*)",), default=PermissionDefault.ALLOW))


def a_text(report: Report) -> str:
    """Pieces in any order, some of them a second time, as what is hidden is often between two."""
    choice, some = report.random.choice, report.random.randint
    first = [choice(PIECES) for _ in range(some(1, 8))]
    again = report.random.sample(first, min(len(first), some(0, 4)))
    first.insert(some(0, len(first)), choice(STARTS))
    return "".join([*first, choice((*STARTS, "")), *again])


def is_let_pass(text: str) -> bool:
    """Whether the rule allows it."""
    return POLICY.rule(Call("Bash", Shell(text))).say is Say.ALLOW


def is_let_pass_naively(text: str) -> bool:
    """Whether no segment begins with the program."""
    return not any(part.strip().startswith("intruder") for part in re.split(r"[;&|\n]", text))


def make_workspace(place: Path) -> Path:
    """A directory with a program that leaves a mark."""
    (place / "bin").mkdir()
    program = place / "bin" / "intruder"
    program.write_text(f"#!/bin/sh\n: > '{place}/mark'\n")
    program.chmod(0o755)
    (place / "here").mkdir()
    return place


async def shells_that_start_it(place: Path, text: str) -> list[str]:
    """In which shells the text starts the intruder."""
    found: list[str] = []
    for shell in SHELLS:
        mark = place / "mark"
        mark.unlink(missing_ok=True)
        with trio.move_on_after(LIMIT):
            await trio.run_process(
                [shell, "-c", text],
                stdin=b"",
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=place / "here",
                env={"PATH": f"{place / 'bin'}:/usr/bin:/bin", "HOME": str(place)},
            )
        found += [shell] if mark.exists() else []
    return found


async def torture(report: Report) -> None:
    """Run all that the rule lets pass, then some of what the control does."""
    if not all(map(shutil.which, SHELLS)):
        raise CannotRun(f"it takes the shells {', '.join(SHELLS)}")
    place = make_workspace(report.work)
    texts = [a_text(report) for _ in range(report.rounds)]
    passed = list(dict.fromkeys(filter(is_let_pass, texts)))
    for number, text in enumerate(passed, 1):
        found = await shells_that_start_it(place, text)
        report.check(not found, f"{text!r} starts it in {found}")
        if number % 1000 == 0:
            report.say(f"{number} of {len(passed)} texts run")
    fooled = [text for text in texts if is_let_pass_naively(text)][:CONTROLS]
    caught = [text for text in fooled if await shells_that_start_it(place, text)]
    report.control("a rule that looks at the first word of each segment", caught)
    report.figures |= {
        "texts": len(texts),
        "let_pass": len(passed),
        "control_let_pass": len(fooled),
        "of_these_started_it": len(caught),
    }


if __name__ == "__main__":
    run(PROGRAM, torture)
