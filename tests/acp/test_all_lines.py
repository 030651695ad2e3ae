"""The lines that the protocol asks of an agent are numbered, and a test carries each number."""

import ast
import re
from pathlib import Path


LINES = range(1, 76)
TESTS = Path(__file__).parent.parent

_NAME = re.compile(r"test_line_(\d\d)_\w")


def numbered() -> dict[str, int]:
    """The tests that carry a number, by module and name."""
    found: dict[str, int] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = _NAME.match(node.name)
                if name is not None:
                    found[f"{path.relative_to(TESTS)}::{node.name}"] = int(name[1])
    return found


def test_every_line_has_a_test() -> None:
    assert set(numbered().values()) == set(LINES)
