"""No interleaving of turns, kills and crashes runs more calls than a budget has.

`scripts/torture/run budget` does the same a thousand times.
"""

import pytest

from tests.daemon.budget import Round
from tests.daemon.harness import simulated


pytestmark = pytest.mark.trio(run=simulated)

ROUNDS = 15


async def test_budget_is_never_exceeded() -> None:
    rounds = [Round(seed) for seed in range(ROUNDS)]

    for each in rounds:
        await each.play()
        assert each.ran <= each.budget, each

    assert sum(each.ran == each.budget for each in rounds) > ROUNDS // 4  # it is met
    assert any(each.crashes for each in rounds)
    assert any(each.kills for each in rounds)


async def test_charges_that_a_crash_forgets_would_have_been_noticed() -> None:
    """The control."""
    for seed in range(ROUNDS):
        each = Round(seed, forgets=True)
        await each.play()
        if each.ran > each.budget:
            return
    raise AssertionError("no round was hard enough")
