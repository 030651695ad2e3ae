"""What a start loads: nothing that only few daemons ever need."""

import json
import subprocess
import sys

import pytest


# Each is loaded by the first who needs it.
RARE = {
    "httpx",
    "moorage_daemon.agents.native",
    "moorage_daemon.checkup",
    "moorage_daemon.providers.opening",
    "moorage_daemon.settings_report",
    "moorage_daemon.store.files.store",
    "moorage_daemon.store.memory",
    "moorage_daemon.transfer.a3s",
    "moorage_daemon.transfer.export",
    "moorage_daemon.transfer.intake",
}


def printed_by(program: str) -> str:
    """What a Python program prints, in a process of its own."""
    command = [sys.executable, "-I", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def loaded_with(module: str) -> set[str]:
    return set(printed_by(f"import sys, {module}; print(*sys.modules)").split())


def test_a_start_loads_nothing_that_only_few_daemons_need() -> None:
    loaded = loaded_with("moorage_daemon.program")

    assert "moorage_daemon.app" in loaded
    assert loaded & RARE == set()


@pytest.mark.parametrize("module", sorted(RARE))
def test_what_is_loaded_late_can_be_loaded_first(module: str) -> None:
    assert module in loaded_with(module)


STAND_IN = """
import gc, json, sys, types
from moorage_daemon.__main__ import main

class Loader:
    def find_spec(self, name, path, target=None):
        if name == "moorage_daemon.program":
            seen["loading"] = gc.isenabled()
            program = types.ModuleType(name)
            program.main = lambda: seen.update(running=gc.isenabled(), kept=gc.get_freeze_count())
            sys.modules[name] = program
            from importlib.machinery import ModuleSpec
            return ModuleSpec(name, self)
    def create_module(self, spec):
        return sys.modules[spec.name]
    def exec_module(self, module):
        pass

seen = {}
sys.meta_path.insert(0, Loader())
main()
print(json.dumps(seen))
"""


def test_the_collector_rests_while_the_program_loads_and_works_when_it_runs() -> None:
    seen = json.loads(printed_by(STAND_IN))

    assert (seen["loading"], seen["running"]) == (False, True)
    assert seen["kept"] > 0
