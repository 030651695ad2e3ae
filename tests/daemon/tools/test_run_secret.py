"""Calls whose arguments hold a secret: they do what they would, where nobody else looks on."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorage_daemon.tools.client import ClientGone, Terminal as ClientTerminal
from moorage_daemon.tools.port import Bench, Tool, ToolFailed
from moorage_daemon.tools.run import Run, RunArguments
from moorage_daemon.tools.terminal import Terminal, TerminalArguments
from moorage_daemon.tools.write import Write, WriteArguments


SECRET = 'it\'s "quoted" $(and) `odd`'


class Lender:
    """A client that lends all it has, and keeps what it is given."""

    reads_files = False
    writes_files = has_terminals = True

    def __init__(self) -> None:
        self.given: list[str] = []

    async def read_text(self, path: str) -> str:
        raise NotImplementedError

    async def write_text(self, path: str, text: str) -> None:
        self.given.append(text)

    def terminal(self, command: str, arguments: Sequence[str], cwd: str) -> ClientTerminal:
        self.given += arguments
        raise ClientGone


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(str(tmp_path), lambda _: None, is_secret=True)


@pytest.mark.parametrize("is_secret", [True, False])
async def test_command_stands_in_no_argument_of_its_shell(bench: Bench, *, is_secret: bool) -> None:
    command = "echo hunter2-hunter2 >/dev/null; tr '\\0' ' ' < /proc/$$/cmdline"

    report = await Run().run(RunArguments(command), replace(bench, is_secret=is_secret))

    assert ("hunter2" in report.text) is not is_secret


@pytest.mark.parametrize(
    ("command", "text", "code"),
    [
        ("cat <<'END'\na $b `c` \"d\" 'e' \\f\nEND", "a $b `c` \"d\" 'e' \\f\n", 0),
        ('printf \'%s|\' "$0" "$#" "$*"', "sh|0||", 0),
        ("env | grep -c MOORAGE_COMMAND", "0\n[exit code 1]", 1),
        ("# nothing but a remark", "", 0),
        ("exit 7", "[exit code 7]", 7),
        ("false", "[exit code 1]", 1),
        ("set -e; false; echo no", "[exit code 1]", 1),
    ],
)
async def test_command_does_what_it_does_without_a_secret(
    bench: Bench, command: str, text: str, code: int
) -> None:
    with_it = await Run().run(RunArguments(command), bench)
    without = await Run().run(RunArguments(command), replace(bench, is_secret=False))

    assert (with_it.text, with_it.exit_code) == (text, code)
    assert with_it == without


@pytest.mark.parametrize("is_secret", [True, False])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (Write(), WriteArguments("file", SECRET)),
        (Terminal(), TerminalArguments("echo hello")),
    ],
    ids=["Write", "Terminal"],
)
async def test_client_is_given_none_of_it(
    bench: Bench, tool: Tool[Any], arguments: Any, *, is_secret: bool
) -> None:
    lender = Lender()

    with suppress(ToolFailed):
        await tool.run(arguments, replace(bench, is_secret=is_secret, client=lender))

    assert bool(lender.given) is not is_secret
