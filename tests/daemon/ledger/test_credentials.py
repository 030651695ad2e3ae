"""Reading credentials: from where the settings say, and only if nobody else can."""

from pathlib import Path

import pytest

from moorage_daemon.grant_settings import CredentialSource
from moorage_daemon.ledger.credentials import MAX_SECRET, Credentials


SECRET = "a long enough secret"


async def read(tmp_path: Path, content: bytes, mode: int = 0o600) -> dict[str, str]:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(mode)
    return await Credentials({"key": CredentialSource(file=file)}).read(["key", "other"])


async def test_file_is_read_without_its_last_line_end(tmp_path: Path) -> None:
    assert await read(tmp_path, f"{SECRET}\n".encode()) == {"key": SECRET}
    assert await read(tmp_path, b"line one\nline two\n") == {"key": "line one\nline two"}


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (SECRET.encode(), 0o644),
        (b"short", 0o600),
        (b"", 0o600),
        (b"\xff" * 20, 0o600),
        (b"with a \0 in it", 0o600),
        (b"x" * (MAX_SECRET + 1), 0o600),
    ],
)
async def test_what_is_no_secret_is_missing(
    tmp_path: Path, content: bytes, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert await read(tmp_path, content, mode) == {}
    assert "cannot be used" in caplog.text
    assert content.decode(errors="replace")[:20] not in caplog.text or not content


async def test_variable_is_read_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = Credentials({"key": CredentialSource(env="A_KEY")})

    monkeypatch.delenv("A_KEY", raising=False)
    assert await credentials.read(["key"]) == {}
    monkeypatch.setenv("A_KEY", SECRET)

    assert await credentials.read(["key"]) == {"key": SECRET}
