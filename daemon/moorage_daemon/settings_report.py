"""The settings in effect, each with where it was said; as they are written in the file.

Nothing in it is secret: a key is named by the variable or the file that holds it.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import msgspec

from moorage_daemon.settings import DEFAULT, Chosen, StoreAddress, WebsocketAddress
from moorage_protocol.checkup import SettingRow, SettingsReport


def settings_report(chosen: Chosen) -> SettingsReport:
    """All settings, tables taken apart into dotted keys."""
    rows = [
        SettingRow(key, msgspec.Raw(msgspec.json.encode(value, enc_hook=str)), _origin(chosen, key))
        for key, value in _flat("", chosen.settings)
    ]
    return SettingsReport(str(chosen.file), chosen.found, rows)


def _origin(chosen: Chosen, key: str) -> str:
    """Where a value was said, or any part of one that is shown whole."""
    parts = (place for said, place in chosen.origins.items() if said.startswith(f"{key}."))
    return chosen.origins.get(key) or next(parts, DEFAULT)


def _flat(prefix: str, settings: object) -> Iterator[tuple[str, object]]:
    """The settings below `prefix`, by their full keys."""
    for name, value in _fields(settings):
        key = f"{prefix}{name}"
        if _is_table(value):
            yield from _flat(f"{key}.", value)
        else:
            yield key, _written(key, value)


def _fields(settings: object) -> Iterator[tuple[str, object]]:
    if isinstance(settings, Mapping):
        yield from cast("Mapping[str, object]", settings).items()
    elif dataclasses.is_dataclass(settings):
        for field in dataclasses.fields(settings):
            yield field.name, getattr(settings, field.name)


def _is_table(value: object) -> bool:
    if isinstance(value, WebsocketAddress | StoreAddress):
        return False  # a string in the file
    return isinstance(value, Mapping) or dataclasses.is_dataclass(value)


def _written(key: str, value: object) -> object:
    """A value as it would stand in the file."""
    if isinstance(value, WebsocketAddress | StoreAddress | Path):
        return str(value)
    if value is None and key == "websocket":
        return ""
    return value
