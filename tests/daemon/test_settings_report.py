"""The settings in effect, and where each was said."""

from pathlib import Path

import msgspec
import pytest

from moorage_daemon.settings import Flags, choose_settings
from moorage_daemon.settings_report import settings_report
from moorage_protocol.rendezvous import STATE_DIR_VARIABLE


FILE = """
default_agent = "native"
grace_seconds = 1
websocket = "[::1]:4711"

[providers.near]
kind = "openai"
base_url = "http://127.0.0.1:11434/v1/"
model = "m"
api_key_file = "/keys/near"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(FILE)
    return path


def reported(flags: Flags, env: dict[str, str]) -> dict[str, tuple[object, str]]:
    report = settings_report(choose_settings(flags, env))
    return {row.key: (msgspec.json.decode(row.value), row.origin) for row in report.settings}


def test_each_setting_is_told_with_where_it_was_said(file: Path) -> None:
    rows = reported(Flags(config=str(file), websocket=""), {STATE_DIR_VARIABLE: "/state"})

    assert rows["default_agent"] == ("native", str(file))
    assert rows["grace_seconds"] == (1, str(file))
    assert rows["prompt_queue"] == (32, "default")
    assert rows["websocket"] == ("", "--websocket")
    assert rows["state_dir"] == ("/state", STATE_DIR_VARIABLE)
    assert rows["default_provider"] == ("near", "default")
    assert rows["allowed_hosts"] == ([], "default")


def test_values_stand_as_they_are_written(file: Path) -> None:
    rows = reported(Flags(config=str(file), state_dir="/mine"), {STATE_DIR_VARIABLE: "/state"})

    assert rows["websocket"] == ("[::1]:4711", str(file))
    assert rows["store"] == ("sqlite:", "default")
    assert rows["state_dir"] == ("/mine", "--state-dir")


def test_tables_are_told_key_by_key(file: Path) -> None:
    rows = reported(Flags(config=str(file)), {})

    assert rows["providers.near.base_url"] == ("http://127.0.0.1:11434/v1", str(file))
    assert rows["providers.near.api_key_file"] == ("/keys/near", str(file))
    assert rows["providers.near.api_key_env"] == (None, "default")
    assert rows["providers.near.connect_seconds"] == (10.0, "default")


def test_table_that_is_told_whole_was_said_where_a_part_of_it_was(file: Path) -> None:
    file.write_text(FILE + '\n[permissions]\nallow = ["Bash(cargo:*)"]\n')

    rows = reported(Flags(config=str(file)), {})

    value, origin = rows["permissions"]
    assert "Bash(cargo:*)" in str(value)
    assert origin == str(file)
    assert rows["grants.max_per_agent"][1] == "default"


def test_missing_file_is_told_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    report = settings_report(choose_settings(Flags(), {"HOME": str(tmp_path)}))

    assert not report.found
    assert report.file.startswith(str(tmp_path))
    assert {row.origin for row in report.settings} == {"default"}


def test_every_setting_can_be_told(file: Path) -> None:
    chosen = choose_settings(Flags(config=str(file)), {})

    report = settings_report(chosen)

    keys = {row.key.split(".")[0] for row in report.settings}
    assert keys == set(chosen.settings.__dataclass_fields__)
    msgspec.json.encode(report)
