"""What holds for all tests: the runner that a module chooses."""

import pytest

from tests.daemon.harness import simulated


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a module's choice of runner beat the one that trio mode puts nearer to each test."""
    for item in items:
        if any(mark.kwargs.get("run") is simulated for mark in item.iter_markers("trio")):
            item.add_marker(pytest.mark.trio(run=simulated), append=False)
