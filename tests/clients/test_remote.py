"""The file that a daemon's token is read from."""

import os
from pathlib import Path

import pytest

from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import Remote
from moorage_clients.cli.remote import token_of


TOKEN = "x" * 43


def token_in(path: Path | str) -> str | None:
    return token_of(Remote("ws://127.0.0.1:1/acp", str(path)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(0o600)
    return path


def test_token_is_what_stands_in_the_file(file: Path) -> None:
    file.write_text(f" {TOKEN}\n")

    assert token_in(file) == TOKEN


def test_token_comes_through_a_pipe_that_others_could_open(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, TOKEN.encode())
    os.close(writing)

    assert token_in(f"/dev/fd/{reading}") == TOKEN
    os.close(reading)


def test_socket_needs_no_token() -> None:
    assert token_of(Remote("unix:/s", None)) is None


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (TOKEN.encode(), 0o644, "others may read it (mode 0644)"),
        (TOKEN.encode(), 0o610, "others may read it (mode 0610)"),
        (b"", 0o600, "is no token"),
        (b"two words", 0o600, "is no token"),
        (b"x" * 5000, 0o600, "is no token"),
        (b"\xff" * 43, 0o600, "is no token"),
    ],
    ids=["open", "open to a group", "empty", "words", "long", "binary"],
)
def test_file_without_a_token_for_us_alone_is_refused(
    file: Path, content: bytes, mode: int, problem: str
) -> None:
    file.write_bytes(content)
    file.chmod(mode)

    with pytest.raises(Failure, match="--token-file") as refused:
        token_in(file)

    assert refused.value.code is Exit.USAGE
    assert problem in refused.value.problem


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="No such file"):
        token_in(tmp_path / "nothing")
