"""What `mooraged` prints when it is asked about itself instead of being started.

One JSON document on standard output: the clients that ask are of the same installation.
"""

from enum import StrEnum

from msgspec import Raw, Struct


class State(StrEnum):
    """How a thing was found."""

    GOOD = "good"
    WEAK = "weak"  # works, and less well than it could
    BROKEN = "broken"  # does not work until somebody does something


class Finding(Struct, frozen=True, omit_defaults=True):
    """One thing that was looked at. `advice` says what to do about it, if anything."""

    name: str
    state: State
    said: str
    advice: str = ""


class Checkup(Struct, frozen=True):
    """All that a daemon found that looked at itself and its system."""

    version: str
    findings: list[Finding]


class SettingRow(Struct, frozen=True):
    """One setting in effect. `origin` is a file, a flag, a variable, or "default"."""

    key: str
    value: Raw
    origin: str


class SettingsReport(Struct, frozen=True):
    """The settings that a daemon started now would have; `file` is where it looked for them."""

    file: str
    found: bool
    settings: list[SettingRow]
