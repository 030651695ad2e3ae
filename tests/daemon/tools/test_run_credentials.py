"""A command that is given a credential: in a variable, and in no argument."""

from pathlib import Path

import pytest

from moorage_daemon.tools.port import Bench, NotBegun
from moorage_daemon.tools.run import Run, RunArguments


SECRET = 'it\'s "quoted" $(and) `odd`'


def bench(path: Path) -> Bench:
    return Bench(str(path), lambda _: None, secrets={"key": SECRET})


async def test_command_reads_the_secret_and_nobody_reads_it_in_its_arguments(
    tmp_path: Path,
) -> None:
    command = 'printf "%s\\n" ${CRED:key} "${CRED:key}"; tr "\\0" " " < /proc/$$/cmdline'

    report = await Run().run(RunArguments(command), bench(tmp_path))

    once, twice, arguments = report.text.split("\n", 2)
    assert once == twice == SECRET
    assert SECRET not in arguments
    assert "printf" in arguments


async def test_command_in_which_its_place_is_not_clear_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(NotBegun, match="cannot be filled in"):
        await Run().run(RunArguments("touch begun; sh -c 'echo ${CRED:key}'"), bench(tmp_path))

    assert list(tmp_path.iterdir()) == []


async def test_what_is_shown_is_the_reference(tmp_path: Path) -> None:
    assert SECRET not in repr(bench(tmp_path))
    assert Run().title(RunArguments("x ${CRED:key}")) == "x ${CRED:key}"
