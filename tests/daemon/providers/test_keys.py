"""A key is read when it is used, from where only its user can have put it."""

import os
from pathlib import Path

import pytest

from moorage_daemon.provider_settings import ProviderKind, ProviderSettings
from moorage_daemon.providers.failures import AuthFailed
from moorage_daemon.providers.keys import read_key


CANARY = "sk-canary-0123456789"
ADDRESS = "https://api.example.org/v1"


def by_file(path: Path) -> ProviderSettings:
    return ProviderSettings(ProviderKind.OPENAI, ADDRESS, "m", api_key_file=path)


def by_variable(name: str) -> ProviderSettings:
    return ProviderSettings(ProviderKind.OPENAI, ADDRESS, "m", api_key_env=name)


def key_file(folder: Path, content: bytes = CANARY.encode() + b"\n", mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


async def refused(settings: ProviderSettings) -> str:
    """Why there is no key; never what stands in its place."""
    with pytest.raises(AuthFailed) as caught:
        await read_key(settings)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


async def test_provider_without_a_key_is_asked_without() -> None:
    assert await read_key(ProviderSettings(ProviderKind.OPENAI, ADDRESS, "m")) is None


async def test_key_comes_from_the_environment_of_the_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = by_variable("EXAMPLE_KEY")
    monkeypatch.setenv("EXAMPLE_KEY", f" {CANARY}\n")
    first = await read_key(settings)
    monkeypatch.setenv("EXAMPLE_KEY", "another")

    assert (first, await read_key(settings)) == (CANARY, "another")


@pytest.mark.parametrize("value", [None, "", "  \n", "two words", "no\x01control", "schlüssel"])
async def test_variable_without_a_key_is_refused(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv("EXAMPLE_KEY", raising=False)
    else:
        monkeypatch.setenv("EXAMPLE_KEY", value)

    assert "EXAMPLE_KEY" in await refused(by_variable("EXAMPLE_KEY"))


async def test_key_comes_from_the_file_of_the_moment(tmp_path: Path) -> None:
    settings = by_file(key_file(tmp_path))
    first = await read_key(settings)
    key_file(tmp_path, b"another")

    assert (first, await read_key(settings)) == (CANARY, "another")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o601])
async def test_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    assert "mode 0600" in await refused(by_file(key_file(tmp_path, mode=mode)))


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"two words", b"two\nlines", b"\xff\xfe", b"k" * 4097],
    ids=["empty", "blank", "words", "lines", "bytes", "long"],
)
async def test_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    assert str(tmp_path) in await refused(by_file(key_file(tmp_path, content)))


async def test_file_that_is_missing_or_none_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)

    assert "cannot be read" in await refused(by_file(tmp_path / "missing"))
    assert "not a regular file" in await refused(by_file(tmp_path))
    assert "not a regular file" in await refused(by_file(fifo))


async def test_link_counts_as_the_file_it_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(key_file(tmp_path))

    assert await read_key(by_file(link)) == CANARY
    key_file(tmp_path, mode=0o644)
    await refused(by_file(link))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    os.chown(path, 65534, 65534)

    assert "this user" in await refused(by_file(path))
