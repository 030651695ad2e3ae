"""What holds for all tests: the runner that a module chooses, and that no process outlives them."""

import os
import sys
import time
from collections.abc import Generator

import pytest
import trio
from hypothesis import HealthCheck, settings

from scripts.torture.leftovers import until_gone
from tests.daemon.harness import simulated
from tests.e2e.npm import NOT_TRIED


# The tests start hundreds of programs. Where bytecode may not be kept, each compiles all it runs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The same examples every time, so that a run says something of the change it is about; how long
# one takes on a busy machine says nothing. To search on: --hypothesis-profile=search.
settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", settings.get_profile("suite"), derandomize=False)
settings.load_profile("suite")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a module's choice of runner beat the one that trio mode puts nearer to each test.

    And let no test have an address in its name: processes that share the tests compare names.
    """
    for item in items:
        if any(mark.kwargs.get("run") is simulated for mark in item.iter_markers("trio")):
            item.add_marker(pytest.mark.trio(run=simulated), append=False)
    if named_anew := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"tests whose names are others in each process: {named_anew}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once more what was skipped aloud, in one line that nobody overlooks.

    The reports tell it, as the tests may have run in other processes.
    """
    reports: list[pytest.TestReport] = terminalreporter.getreports("skipped")
    reasons = {str(report.longrepr[2]) for report in reports if isinstance(report.longrepr, tuple)}
    for reason in sorted(reason for reason in reasons if NOT_TRIED in reason):
        terminalreporter.write_line(reason, red=True, bold=True)


@pytest.fixture(scope="session", autouse=True)
def no_process_outlives_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Whoever starts a daemon ends it: what a test left running is ended here, and is an error.

    Such a process is known by the test's directory among its arguments.
    """
    yield
    if sys.platform == "linux":
        marker = f"{tmp_path_factory.getbasetemp()}{os.sep}"
        (found,) = trio.run(until_gone, [marker], time.monotonic())
        assert not found.pids, f"processes outlived their tests: {sorted(found.pids)}"
