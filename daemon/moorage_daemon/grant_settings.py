"""What a person may say about tool calls: `[grants]` and `[permissions]` of the settings file.

A credential is named and never written here: by the environment variable or the file that holds
it, as a provider's key is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from moorage_daemon.grants.credentials import is_name
from moorage_daemon.grants.rules import BadRule, read_rule
from moorage_daemon.setting_tables import BadTable, Rule, number, read_table, whole
from moorage_protocol.config import PermissionDefault, Permissions
from moorage_protocol.grants import Sensitivity


MAX_PER_AGENT = 10_000
MAX_RETENTION = 3650  # days

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")


@dataclass(frozen=True)
class CredentialSource:
    """Where a credential is: exactly one of the two is set."""

    env: str | None = None
    file: Path | None = None


def _nothing() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class GrantSettings:
    """`max_per_agent` is how many active grants an agent of one principal may have at once.

    `sensitivity` are the rules for calls whose results are more, or less, than `internal`.
    """

    max_per_agent: int = 10
    retention_days: float = 30
    credentials: Mapping[str, CredentialSource] = field(default_factory=_nothing)
    sensitivity: Mapping[Sensitivity, tuple[str, ...]] = field(default_factory=_nothing)


def read_grants(value: object) -> GrantSettings:
    """The table `[grants]`; raises `BadTable`."""
    return GrantSettings(**read_table("grants", value, _RULES))


def read_permissions(value: object) -> Permissions:
    """The table `[permissions]`; what no rule in it is about is left to the session."""
    chosen: dict[str, Any] = {"default": None}
    return Permissions(**chosen | read_table("permissions", value, _PERMISSION_RULES))


def _rules(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    found = cast("list[object]", value)
    if not all(isinstance(each, str) for each in found):
        raise ValueError
    for rule in cast("list[str]", found):
        try:
            read_rule(rule)
        except BadRule as error:
            raise BadTable(f"the rule {rule[:64]!r} cannot be read: {error}") from error
    return tuple(cast("list[str]", found))


def _credentials(value: object) -> Mapping[str, CredentialSource]:
    if not isinstance(value, dict):
        raise ValueError
    table = cast("dict[str, object]", value)
    if not all(map(is_name, table)):
        raise ValueError
    return MappingProxyType({name: _source(found) for name, found in table.items()})


def _source(value: object) -> CredentialSource:
    if not isinstance(value, dict) or len(cast("dict[str, object]", value)) != 1:
        raise ValueError
    [(key, said)] = cast("dict[str, object]", value).items()
    if not isinstance(said, str):
        raise ValueError
    if key == "env" and _VARIABLE.fullmatch(said):
        return CredentialSource(env=said)
    if key == "file" and said:
        return CredentialSource(file=Path(said).expanduser())
    raise ValueError


def _sensitivity(value: object) -> Mapping[Sensitivity, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise ValueError
    table = cast("dict[str, object]", value)
    return MappingProxyType({Sensitivity(level): _rules(found) for level, found in table.items()})


_RULES = {
    "max_per_agent": Rule(f"a whole number up to {MAX_PER_AGENT}", whole(MAX_PER_AGENT)),
    "retention_days": Rule(f"days up to {MAX_RETENTION}", number(MAX_RETENTION)),
    "credentials": Rule('tables: NAME = {env = "VARIABLE"} or {file = "PATH"}', _credentials),
    "sensitivity": Rule(
        f"lists of rules under {', '.join(Sensitivity)}, like Read(secrets/**)", _sensitivity
    ),
}
_LIST_OF_RULES = Rule("a list of rules, like Read(src/**) or Bash(cargo:*)", _rules)
_PERMISSION_RULES = {
    "deny": _LIST_OF_RULES,
    "allow": _LIST_OF_RULES,
    "ask": _LIST_OF_RULES,
    "default": Rule('"ask", "deny" or "allow"', PermissionDefault),
}
