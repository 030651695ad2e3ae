"""`moorage config`: the settings as the daemon reads them."""

import json

from moorage_clients.cli.asking import ask, ask_plainly
from moorage_clients.cli.exits import Exit
from moorage_clients.cli.invocation import ConfigCheck, ConfigShow, Invocation
from moorage_clients.cli.screen import Screen
from moorage_clients.plain_text import one_line
from moorage_protocol.checkup import SettingsReport


VALUE_WIDTH = 100  # characters of a value in the table; --json has all of it


def check(invocation: Invocation, command: ConfigCheck, screen: Screen) -> Exit:
    """Say whether a daemon would start with the settings."""
    if invocation.json:
        report = ask(["--show-config", *command.flags], SettingsReport)
        screen.document({"ok": True, "file": report.file, "found": report.found})
    else:
        screen.say(ask_plainly(["--check-config", *command.flags]) + "\n")
    return Exit.OK


def show(invocation: Invocation, command: ConfigShow, screen: Screen) -> Exit:
    """Print every setting, and where it was said."""
    report = ask(["--show-config", *command.flags], SettingsReport)
    if invocation.json:
        screen.document(report)
        return Exit.OK
    rows = [(row.key, _value(bytes(row.value)), row.origin) for row in report.settings]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for key, value, origin in rows:
        line = f"{key.ljust(widths[0])}  {value.ljust(widths[1])}  {origin}"
        screen.say(line.rstrip() + "\n")
    if not report.found:
        screen.note(
            f"There is no {report.file}: everything that is not said otherwise is a default."
        )
    return Exit.OK


def _value(written: bytes) -> str:
    """A value as it would stand in the file; nothing for one that is not set."""
    value: object = json.loads(written)
    return "" if value is None else one_line(json.dumps(value, ensure_ascii=False), VALUE_WIDTH)
