"""Spends a budget of B as `budget` does, in one process and on a store in memory.

Each round starts one to three daemons one after the other on one disk, the next from what was
durable when the one before it crashed. Every call that really ran is counted. The control forgets
at each crash what was used.
"""

import logging

from scripts.torture.report import Program, Report, run
from tests.daemon.budget import Round


PROGRAM = Program("budget_in_process", __doc__, rounds=1000, quick_rounds=30)
CONTROL_ROUNDS = 30


async def torture(report: Report) -> None:
    """Play all rounds, then some of the control."""
    logging.getLogger("moorage_daemon").setLevel(logging.ERROR)  # thousands of refusals are meant
    rounds: list[Round] = []
    for number in range(report.rounds):
        each = Round(report.seed * 1_000_000 + number)
        await each.play()
        report.check(
            each.ran <= each.budget, f"{each.ran} calls ran of {each.budget}: seed {each.seed}"
        )
        rounds.append(each)
        if number % 100 == 99:
            report.say(f"{number + 1} rounds")
    caught = 0
    for number in range(CONTROL_ROUNDS):
        each = Round(number, forgets=True)
        await each.play()
        caught += each.ran > each.budget
    report.control("a disk that forgets what was used", caught > 0)
    report.figures |= {
        "crashes": sum(each.crashes for each in rounds),
        "kills": sum(each.kills for each in rounds),
        "calls_allowed": sum(each.budget for each in rounds),
        "calls_ran": sum(each.ran for each in rounds),
        "budgets_met": sum(each.ran == each.budget for each in rounds),
        "control_rounds_exceeded": caught,
    }


if __name__ == "__main__":
    run(PROGRAM, torture)
