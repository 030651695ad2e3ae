"""What a terminal lends to the tools of a session that is started in it."""

import msgspec
import pytest

from moorage_clients.cli.lending import lent
from moorage_protocol.moorage import MAX_VARIABLE


LENT = {"PATH": "/mine:/bin", "SSH_AUTH_SOCK": "/run/agent", "VIRTUAL_ENV": "/mine"}


def test_three_variables_are_lent_and_no_other() -> None:
    notes: list[str] = []

    found = lent({**LENT, "HOME": "/home/me", "OPENAI_API_KEY": "secret"}, notes.append)

    assert msgspec.to_builtins(found) == LENT
    assert notes == []


def test_what_is_not_set_or_empty_is_not_lent() -> None:
    notes: list[str] = []

    found = lent({"PATH": "/bin", "VIRTUAL_ENV": ""}, notes.append)

    assert msgspec.to_builtins(found) == {"PATH": "/bin"}
    assert notes == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("PATH", "x" * (MAX_VARIABLE + 1)), ("VIRTUAL_ENV", "venv"), ("SSH_AUTH_SOCK", "/a\udcff")],
)
def test_what_the_daemon_would_refuse_stays_here_and_a_note_says_so(name: str, value: str) -> None:
    notes: list[str] = []

    found = lent({**LENT, name: value}, notes.append)

    assert msgspec.to_builtins(found) == {key: LENT[key] for key in LENT if key != name}
    assert [note.split()[0] for note in notes] == [name]
