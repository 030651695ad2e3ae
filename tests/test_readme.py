"""The README says what there is: its settings, its commands, and what editors are to read."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest

from moorage_clients.cli.arguments import parse
from moorage_daemon.provider_settings import ProviderSettings
from moorage_daemon.settings import Settings


README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SETTINGS = README.partition("## Settings\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"(?:^    .*\n|^\n(?=    ))+", README, re.MULTILINE)


def commands() -> list[str]:
    """What is typed in it."""
    return re.findall(r"^    \$ (moorage .*)$", README, re.MULTILINE)


@pytest.mark.parametrize("line", commands())
def test_every_command_that_is_shown_is_one(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    for place, word in enumerate(words):
        if word in (">", "|", "&"):  # from here on the shell's
            words = words[:place]
            break
        if word.startswith("<("):  # the shell puts a name there
            words = [*words[:place], "/dev/fd/63"]
            break

    parse(words)


def test_there_are_commands_to_look_at() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize(
    "key", [field.name for field in dataclasses.fields(Settings) if field.name != "state_dir"]
)
def test_every_setting_is_in_the_table(key: str) -> None:
    assert f"`{key}`" in SETTINGS or f"[{key}" in SETTINGS


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(ProviderSettings)])
def test_every_setting_of_a_provider_is_named(key: str) -> None:
    assert f"`{key}`" in SETTINGS


def test_settings_for_editors_are_json() -> None:
    found = [block for block in BLOCKS if "agent_servers" in block]

    assert len(found) == 2
    for block in found:
        (agent,) = json.loads(block)["agent_servers"].values()
        assert agent["args"] == ["acp"]
        assert agent["command"].endswith("moorage")


def test_brackets_of_settings_for_editors_are_closed() -> None:
    for mark in ('require("codecompanion")', "(defun moorage"):
        (block,) = [block for block in BLOCKS if mark in block]
        for opening, closing in ("()", "{}"):
            assert block.count(opening) == block.count(closing)
