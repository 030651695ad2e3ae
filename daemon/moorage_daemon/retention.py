"""How long sessions are kept: `[retention]` of the settings file."""

from dataclasses import dataclass

from moorage_daemon.setting_tables import Rule, number, read_table, whole


MAX_DAYS = 36_500
MAX_ENTRIES = 10**9


@dataclass(frozen=True)
class Retention:
    """A session that nobody used for `days` is removed; of a longer log the last turns with
    `max_entries` are kept. 0 keeps everything."""

    days: float = 0
    max_entries: int = 0


def read_retention(value: object) -> Retention:
    """The table `[retention]`; raises `BadTable`."""
    return Retention(**read_table("retention", value, _RULES))


_RULES = {
    "days": Rule(f"days up to {MAX_DAYS}, or 0 for ever", number(MAX_DAYS)),
    "max_entries": Rule("a whole number, or 0 for all", whole(MAX_ENTRIES)),
}
