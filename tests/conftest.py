"""What holds for all tests: the runner that a module chooses, and that no process outlives them."""

import sys
import time
from collections.abc import Generator

import pytest
import trio

from scripts.torture.leftovers import until_gone
from tests.daemon.harness import simulated


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a module's choice of runner beat the one that trio mode puts nearer to each test."""
    for item in items:
        if any(mark.kwargs.get("run") is simulated for mark in item.iter_markers("trio")):
            item.add_marker(pytest.mark.trio(run=simulated), append=False)


@pytest.fixture(scope="session", autouse=True)
def no_process_outlives_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Whoever starts a daemon ends it: what a test left running is ended here, and is an error.

    Such a process is known by the test's directory among its arguments.
    """
    yield
    if sys.platform == "linux":
        marker = str(tmp_path_factory.getbasetemp())
        (found,) = trio.run(until_gone, [marker], time.monotonic())
        assert not found.pids, f"processes outlived their tests: {sorted(found.pids)}"
