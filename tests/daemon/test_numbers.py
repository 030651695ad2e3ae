"""Every promise that has a number has a test that names it."""

import re
from pathlib import Path

import pytest


TESTS = Path(__file__).parent
NAMED = re.compile(r"(?:def test_|_|id=\")(t[px][0-9]{2})(?=_)")
NUMBERS = [f"tp{number:02}" for number in range(1, 34)] + [
    f"tx{number:02}" for number in range(1, 16)
]


def numbers_in(text: str) -> set[str]:
    """The numbers in names of tests and of their cases."""
    lines = [line for line in text.splitlines() if "def test_" in line or "id=" in line]
    return {number for line in lines for number in NAMED.findall(line)}


FOUND = {
    number
    for file in TESTS.rglob("test_*.py")
    for number in numbers_in(file.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("number", NUMBERS)
def test_number_has_a_test(number: str) -> None:
    assert number in FOUND


def test_no_number_is_made_up() -> None:
    assert sorted(FOUND) == NUMBERS


def test_what_is_said_in_passing_is_no_name() -> None:
    text = '# tp01_x\nasync def test_tp02_y() -> None:\n    tp03_z = 1\n  id="tp04_a"'

    assert numbers_in(text) == {"tp02", "tp04"}
