"""How a session is set up, in the words of a command line: KEY=VALUE, an empty value clears.

A key is a field of the configuration in snake case; what is no plain text is JSON.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.keys import LABEL, TEXTS
from moorage_clients.cli.screen import Screen
from moorage_clients.plain_text import one_line
from moorage_protocol.config import ConfigShown, ConfigWish


SHOWN_WIDTH = 100  # characters of a value

_SWITCHES = {"on": True, "yes": True, "off": False, "no": False}


def wish(settings: Sequence[tuple[str, str]], now: ConfigShown) -> ConfigWish:
    """The change of what is `now` that the words ask for.

    Raises `Failure` for what cannot be what was meant.
    """
    wanted: dict[str, Any] = {}
    labels = dict(now.labels)
    for key, value in settings:
        if key.startswith(LABEL):
            labels.pop(key.removeprefix(LABEL), None)
            labels |= {key.removeprefix(LABEL): value} if value else {}
            wanted["labels"] = labels
        else:
            wanted[_camel(key)] = _read(key, value) if value else None
    try:
        return msgspec.json.decode(json.dumps(wanted), type=ConfigWish)
    except msgspec.ValidationError as error:
        raise Failure(Exit.USAGE, f"That is no such setting: {error}") from error


def _camel(key: str) -> str:
    first, *others = key.split("_")
    return first + "".join(word.capitalize() for word in others)


def _read(key: str, value: str) -> object:
    if key == "system_prompt" and value.startswith("@"):
        return _text_of(value[1:], f"{key}={value}")
    if key in TEXTS:
        return value
    if key == "tools" and not value.startswith("["):
        return value.split(",")
    if key == "thinking" and (value in _SWITCHES or value.isdecimal()):
        return _thinking(value)
    if value in _SWITCHES:
        return _SWITCHES[value]
    try:
        return json.loads(value)
    except ValueError:
        raise Failure(
            Exit.USAGE,
            f"{key}={value}: that is neither a switch nor JSON.",
            "Switches are on or off, all else is JSON. See: moorage configure --help",
        ) from None


def _text_of(path: str, setting: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(Exit.USAGE, f"{setting}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Failure(Exit.USAGE, f"{setting}: that is no text") from error


def _thinking(value: str) -> object:
    if value.isdecimal():
        return {"budgetTokens": int(value)}
    return {} if _SWITCHES[value] else None


def show(config: ConfigShown, screen: Screen) -> None:
    """Print what is not as it is by itself, a line each."""
    defaults = msgspec.to_builtins(
        ConfigShown(name="", workspace="", storage="", parent=None, labels={})
    )
    values: dict[str, Any] = json.loads(msgspec.json.encode(config))
    values.pop("workspace")
    values.pop("storage")
    for label, value in values.pop("labels").items():
        screen.say(f"{LABEL}{one_line(label, SHOWN_WIDTH)}={one_line(value, SHOWN_WIDTH)}\n")
    for name, value in values.items():
        if value != defaults.get(name):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            screen.say(f"{_snake(name)}={one_line(text, SHOWN_WIDTH)}\n")


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
