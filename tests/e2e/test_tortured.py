"""A little of `scripts/torture/run messages`, `starts` and `budget`, at every run of the tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage_daemon.handlers.table import METHODS
from scripts.torture import budget, messages, starts
from scripts.torture.report import Report


@pytest.fixture
def report() -> Iterator[Report]:
    with tempfile.TemporaryDirectory(prefix="moorage-") as path:
        yield Report(messages.PROGRAM, 1, seed=3, work=Path(path))


async def test_any_messages_in_any_order_are_answered_as_they_deserve(report: Report) -> None:
    talk = await messages.converse(report, "state", 600)

    assert talk.problems == []
    assert talk.fds[1] <= talk.fds[0]
    assert talk.codes[-32700] > 0
    assert talk.codes[-32602] > 0


async def test_grammar_of_messages_knows_every_method() -> None:
    assert {*messages.GRAMMAR} == {*METHODS}


async def test_handler_with_a_bug_is_noticed(report: Report) -> None:
    with messages.planted(report.work):
        talk = await messages.converse(report, "state", 900)

    assert any("-32603" in problem for problem in talk.problems)


@pytest.mark.parametrize("left", [1, 3, 4], ids=["reused pid", "garbage", "half a record"])
async def test_what_a_dead_daemon_left_keeps_nobody_from_one(report: Report, left: int) -> None:
    took: list[float] = []

    await starts.over_leftovers(report, left, took)

    assert report.violations == []
    assert len(took) == 1


@pytest.mark.parametrize("store", budget.STORES)
async def test_budget_is_not_exceeded_though_its_daemon_is_killed(
    report: Report, store: str
) -> None:
    waves = budget.Waves(report, store, together=2, gateways=8)

    await waves.one(kills=1)

    assert waves.problems == []
    assert waves.kills == 1
    assert waves.counts["tools_ran"] > 0


async def test_charge_apart_from_the_look_at_its_budget_is_noticed(report: Report) -> None:
    waves = budget.Waves(report, "sqlite", "apart", together=4, gateways=8)

    while not waves.problems and waves.played < 5:
        await waves.one(kills=0)

    assert any("recorded of" in problem for problem in waves.problems)
