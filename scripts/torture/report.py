"""What a torture found: violations, figures, and whether the control arms were noticed.

Progress goes to standard error, one line of JSON to standard output. A control arm that nobody
noticed counts as a violation: checks that cannot fail have shown nothing.
"""

import argparse
import json
import math
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio


SHOWN = 20  # violations in the result line; the number is always the whole one
CANNOT = 2  # exit code of what cannot be tried here


class CannotRun(Exception):
    """This machine or user cannot do it; one line says why."""


@dataclass(frozen=True)
class Program:
    """One torture as a command: `rounds` by default, `quick_rounds` to see that it works."""

    name: str
    about: str | None
    rounds: int
    quick_rounds: int


@dataclass(eq=False)
class Report:
    """What one run is given and what it finds. `work` is a directory of its own."""

    program: Program
    rounds: int
    seed: int
    work: Path
    figures: dict[str, Any] = field(default_factory=dict[str, Any])
    violations: list[str] = field(default_factory=list[str])
    controls: dict[str, bool] = field(default_factory=dict[str, bool])
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def say(self, text: str) -> None:
        """Progress."""
        elapsed = time.monotonic() - self.began
        print(f"{self.program.name} {elapsed:6.1f} s  {text}", file=sys.stderr, flush=True)

    def violation(self, text: str) -> None:
        """A promise was broken."""
        self.violations.append(text)
        self.say(f"VIOLATION: {text}")

    def check(self, holds: bool, text: str) -> None:
        """`text` says what is wrong when it does not hold."""
        if not holds:
            self.violation(text)

    def control(self, name: str, noticed: Sequence[object] | bool) -> None:
        """A control arm was run, and this is what the same checks said of it."""
        self.controls[name] = bool(noticed)
        if not noticed:
            self.violation(f"the control arm was not noticed: {name}")

    def print(self) -> int:
        """The result line; gives the exit code."""
        line = {
            "torture": self.program.name,
            "ok": not self.violations,
            "rounds": self.rounds,
            "seed": self.seed,
            "seconds": round(time.monotonic() - self.began, 1),
            "violations": len(self.violations),
            "controls_noticed": self.controls,
            **self.figures,
        }
        if self.violations:
            line["first_violations"] = self.violations[:SHOWN]
        print(json.dumps(line), flush=True)
        return 1 if self.violations else 0


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Count, median, 99th percentile and maximum, in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return {"count": 0}
    ranks = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    found = {name: ordered[math.ceil(len(ordered) * at) - 1] for name, at in ranks.items()}
    return {"count": len(ordered), **{name: round(at * 1000, 2) for name, at in found.items()}}


def run(program: Program, torture: Callable[[Report], Awaitable[None]]) -> None:
    """The command of one torture; ends the process.

    Exit codes: 0 all held, 1 a violation, 2 it cannot be tried here.
    """
    arguments = _parser(program).parse_args()
    work = Path(tempfile.mkdtemp(prefix=f"moorage-{program.name}-"))
    rounds = arguments.rounds or (program.quick_rounds if arguments.quick else program.rounds)
    report = Report(program, rounds, arguments.seed, work)
    try:
        trio.run(torture, report)
    except CannotRun as problem:
        print(f"{program.name}: cannot run here: {problem}", file=sys.stderr)
        shutil.rmtree(work)
        sys.exit(CANNOT)
    code = report.print()
    if code == 0:
        shutil.rmtree(work)
    else:
        print(f"{program.name}: what is left of it: {work}", file=sys.stderr)
    sys.exit(code)


def _parser(program: Program) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"scripts/torture/run {program.name}",
        description=program.about,
        epilog=f"""\
example:
  scripts/torture/run {program.name} --rounds {program.quick_rounds} --seed 7

exit codes: 0 all held, 1 a promise was broken or a control arm not noticed, 2 cannot be tried here
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=_count, help=f"how often (default {program.rounds})")
    parser.add_argument("--seed", type=int, default=1, help="of every random choice (default 1)")
    parser.add_argument(
        "--quick", action="store_true", help=f"{program.quick_rounds} rounds, to see that it works"
    )
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
