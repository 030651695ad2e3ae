"""The words of the commands about grants, and of limits that a new session is given."""

import argparse
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from moorage_clients.cli.exits import Exit
from moorage_clients.cli.invocation import (
    GrantClose,
    GrantGc,
    GrantList,
    GrantRaise,
    GrantShow,
    Limits,
)
from moorage_clients.cli.parsing import WITH_DAEMON, Grammar, Wrong, count


GRANT = "id of a grant or the start of it, or the id of the session it is for"
UNITS = {"k": 1_000, "m": 1_000_000}
MICROS = 1_000_000  # millionths of a dollar
DAY = 1440  # minutes

WITH_GRANT = (*WITH_DAEMON, Exit.NO_SESSION)
NO_GRANT = {Exit.NO_SESSION: "no such grant, or several begin like that"}


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what a session may do."""
    group = parser.add_argument_group("what it may do (default: all)")
    tools = group.add_mutually_exclusive_group()
    tools.add_argument(
        "--tools", metavar="RULES", help="only these, like Read,'Bash(git:*)'; '' is none"
    )
    tools.add_argument("--any-tool", action="store_true", help="any tool, within the limits")
    add_amounts(group.add_argument, usual="default: 60, ")


def add_amounts(add: Callable[..., argparse.Action], *, usual: str = "") -> None:
    """Add the flags that say how much; `usual` is what holds where no time is given."""
    add("--calls", metavar="N", type=count, help="so many tool calls")
    add("--tokens", metavar="N", type=tokens, help="so many tokens, like 200k")
    add("--usd", metavar="N", type=micros, help="so many dollars, like 2.50")
    add("--minutes", metavar="N", type=minutes, help=f"so long ({usual}at most a day)")


def limits(found: argparse.Namespace) -> Limits | None:
    """What a session may do, None where nothing was said of it."""
    said = Limits(
        tools=None if found.tools is None else split_rules(found.tools),
        calls=found.calls,
        tokens=found.tokens,
        micros=found.usd,
        seconds=None if found.minutes is None else found.minutes * 60,
    )
    if said == Limits() and not found.any_tool:
        return None
    if said.tools is None and not found.any_tool:
        raise Wrong("say which --tools it may use, or --any-tool")
    return said


def split_rules(text: str) -> tuple[str, ...]:
    """The rules of a list with commas between; one in brackets belongs to its rule."""
    rules, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth <= 0:
            rules.append("")
        else:
            rules[-1] += letter
    return tuple(rule.strip() for rule in rules if rule.strip())


def minutes(value: str) -> float:
    """A length of time that a grant may have."""
    try:
        found = float(value)
    except ValueError:
        found = 0.0
    if not 0 < found <= DAY:
        raise argparse.ArgumentTypeError(
            f"{value!r} is not a number of minutes that is more than 0 and at most {DAY}"
        )
    return found


def tokens(value: str) -> int:
    """A number of tokens; k is thousand, m is million."""
    digits, unit = (value[:-1], UNITS[value[-1:].lower()]) if value[-1:].lower() in UNITS else (
        value, 1
    )  # fmt: skip
    try:
        number = Decimal(digits) * unit
    except InvalidOperation:
        number = Decimal(-1)
    if number < 0 or number != number.to_integral_value():
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of tokens, like 200k")
    return int(number)


def micros(value: str) -> int:
    """An amount of money, as a whole number of millionths."""
    try:
        number = Decimal(value) * MICROS
    except InvalidOperation:
        number = Decimal(-1)
    if not number.is_finite() or number < 0 or number != number.to_integral_value():
        raise argparse.ArgumentTypeError(f"{value!r} is not an amount of dollars, like 2.50")
    return int(number)


def add_grant_commands(grammar: Grammar) -> None:
    """Add them, those that a person needs first in front."""
    verbs = grammar.group(
        "grant", "look at what agents may do, give more of it, or end it",
        "A grant says which tools, how often, how much and how long. A session gets one with the "
        "limits of moorage new; other programs make theirs over the wire.",
    )  # fmt: skip
    for add in (_list, _show, _raise, _close, _gc):
        add(verbs)


def _list(verbs: Grammar) -> None:
    parser = verbs.command(
        "list", "list the grants, the newest first", lambda found: GrantList(found.agent),
        examples=("moorage grant list", "moorage grant list --agent native --json"),
    )  # fmt: skip
    parser.add_argument("--agent", metavar="NAME", help="only those of this agent")


def _show(verbs: Grammar) -> None:
    parser = verbs.command(
        "show", "say all there is to say of a grant", lambda found: GrantShow(found.grant),
        examples=("moorage grant show k3f2", "moorage grant show k3f2 --json | jq .used"),
        exits=WITH_GRANT, means=NO_GRANT,
    )  # fmt: skip
    parser.add_argument("grant", metavar="GRANT", help=GRANT)


def _raise(verbs: Grammar) -> None:
    parser = verbs.command(
        "raise", "give a grant more, on record", _build_raise,
        about="The amounts are the new limits, not what is added; one that is less than before "
        "changes nothing. What a grant above has no more of it cannot get.",
        examples=("moorage grant raise k3f2 --calls 200", "moorage grant raise k3f2 --usd 5"),
        exits=WITH_GRANT, means=NO_GRANT,
    )  # fmt: skip
    parser.add_argument("grant", metavar="GRANT", help=GRANT)
    add_amounts(parser.add_argument)


def _build_raise(found: argparse.Namespace) -> GrantRaise:
    time = None if found.minutes is None else found.minutes * 60
    amounts = Limits(None, found.calls, found.tokens, found.usd, time)
    if amounts == Limits():
        raise Wrong("say what it gets more of: --calls, --tokens, --usd or --minutes")
    return GrantRaise(found.grant, amounts)


def _close(verbs: Grammar) -> None:
    parser = verbs.command(
        "close", "end grants, and all that came out of them",
        lambda found: GrantClose(tuple(found.grants)),
        about="Turns that stand on one are cancelled. Says how each was used.",
        examples=("moorage grant close k3f2",), exits=WITH_GRANT, means=NO_GRANT,
    )  # fmt: skip
    parser.add_list("grants", metavar="GRANT", nargs="+", help=GRANT)


def _gc(verbs: Grammar) -> None:
    verbs.command(
        "gc", "remove the grants that ended long ago", lambda _: GrantGc(),
        about="How long they stay is the setting retention_days under [grants]. The daemon does "
        "it by itself, too.",
        examples=("moorage grant gc",),
    )  # fmt: skip
