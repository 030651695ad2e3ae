"""A little of `scripts/torture/run messages` and `starts`, at every run of the tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.torture import messages, starts
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
