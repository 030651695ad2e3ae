"""`moorage doctor`: look at everything that has to be right, and say what to do about what is not.

It looks and changes nothing: no daemon is started, no directory made.
"""

import platform
import sys
from collections.abc import Sequence

from moorage_clients.cli.asking import ask
from moorage_clients.cli.colour import Style
from moorage_clients.cli.daemon_findings import look_at_daemon
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import Doctor, Invocation
from moorage_clients.cli.loop import run
from moorage_clients.cli.screen import Screen
from moorage_clients.cli.state_findings import look_at_state_dir
from moorage_clients.plain_text import counted, plain
from moorage_protocol import __version__
from moorage_protocol.checkup import Checkup, Finding, State


REINSTALL = "Install moorage again: command and daemon belong together."
WORDS = {
    State.GOOD: ("ok", Style.GOOD),
    State.WEAK: ("warning", Style.CAREFUL),
    State.BROKEN: ("problem", Style.BAD),
}


def doctor(invocation: Invocation, command: Doctor, screen: Screen) -> Exit:
    """Look, tell, and end with 1 if something does not work."""
    findings = [_python(), *_installation(command.flags)]
    findings += look_at_state_dir(invocation.state_dir)
    findings += run(look_at_daemon, invocation.state_dir)
    problems = sum(finding.state is State.BROKEN for finding in findings)
    if invocation.json:
        screen.document({"ok": not problems, "findings": findings})
    else:
        _print(findings, screen)
    return Exit.FAILED if problems else Exit.OK


def _python() -> Finding:
    said = f"{platform.python_version()} on {sys.platform}, {sys.executable}"
    if sys.platform.startswith("linux"):
        return Finding("python", State.GOOD, said)
    weaker = f"{said}: processes and files are guarded less well than on Linux"
    return Finding("python", State.WEAK, weaker)


def _installation(flags: Sequence[str]) -> list[Finding]:
    """Command and daemon are of one version; then, what the daemon says of itself."""
    try:
        checkup = ask(["--check-system", *flags], Checkup)
    except Failure as failure:
        return [Finding("moorage", State.BROKEN, failure.problem, REINSTALL)]
    if checkup.version != __version__:
        said = f"the command is {__version__}, its daemon {checkup.version}"
        return [Finding("moorage", State.BROKEN, said, REINSTALL), *checkup.findings]
    return [Finding("moorage", State.GOOD, f"{__version__}, command and daemon"), *checkup.findings]


def _print(findings: Sequence[Finding], screen: Screen) -> None:
    width = max(len(finding.name) for finding in findings)
    indent = " " * 9
    for finding in findings:
        word, style = WORDS[finding.state]
        word = screen.words.paint(word.ljust(7), style)
        screen.say(f"{word}  {finding.name.ljust(width)}  {plain(finding.said)}\n")
        if finding.advice:
            screen.say(f"{indent}{' ' * width}  → {plain(finding.advice)}\n")
    problems, warnings = (
        sum(finding.state is state for finding in findings) for state in (State.BROKEN, State.WEAK)
    )
    if problems or warnings:
        screen.say(f"\n{counted(problems, 'problem')}, {counted(warnings, 'warning')}.\n")
    else:
        screen.say("\nAll is well.\n")
