"""Commands about grants: list, show, raise, close, gc."""

import time
from collections.abc import Sequence

from moorage_clients.cli.choosing import short_ids
from moorage_clients.cli.colour import Style
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import (
    GrantClose,
    GrantList,
    GrantRaise,
    GrantShow,
    Invocation,
)
from moorage_clients.cli.limits import budget
from moorage_clients.cli.opening import run_with_client
from moorage_clients.cli.screen import Screen
from moorage_clients.cli.sessions import age
from moorage_clients.client import Client
from moorage_clients.plain_text import one_line
from moorage_protocol.grants import (
    GrantDetail,
    GrantState,
    GrantSummary,
    RaiseParams,
)


MICROS = 1_000_000  # millionths of a dollar
AXES = ("calls", "tokens", "micros")
STATES = {
    GrantState.ACTIVE: Style.GOOD,
    GrantState.EXPIRED: Style.FAINT,
    GrantState.CLOSED: Style.FAINT,
}


async def _choose(client: Client, given: str) -> GrantDetail:
    """The one grant that is meant; raises `Failure`."""
    grants = await client.grants()
    found = [grant for grant in grants if grant.grant_id.startswith(given) and given]
    found = found or [grant for grant in grants if grant.session_id == given]
    exact = [grant for grant in found if grant.grant_id == given]
    found = exact or found
    if not found:
        raise Failure(
            Exit.NO_SESSION, f"No grant's id begins with {given!r}.", "See: moorage grant list"
        )
    if len(found) > 1:
        lines = [f"  {grant.grant_id}  {one_line(grant.intent, 60)}" for grant in found[:10]]
        raise Failure(
            Exit.NO_SESSION, f"Several grants' ids begin with {given!r}:", "\n".join(lines)
        )
    return found[0]


# ---- list


def list_grants(invocation: Invocation, command: GrantList, screen: Screen) -> Exit:
    """List the grants."""

    async def work(client: Client) -> Exit:
        grants = await client.grants(command.agent)
        if invocation.json:
            screen.document({"grants": grants})
        elif not grants:
            screen.note("No grants. A session gets one with: moorage new --tools … --calls …")
        else:
            _print_table(grants, screen)
        return Exit.OK

    return run_with_client(invocation, work)


def _print_table(grants: Sequence[GrantDetail], screen: Screen) -> None:
    short = short_ids([grant.grant_id for grant in grants])
    head = ["ID", "STATE", "AGENT", "CALLS", "TOKENS", "USD", "LEFT", "INTENT"]
    cells = [head, *([short[grant.grant_id], *_row(grant)] for grant in grants)]
    widths = [max(len(line[column]) for line in cells) for column in range(7)]
    for number, line in enumerate(cells):
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        if number == 0:
            whole = "  ".join([*padded, line[7]]).rstrip()
            screen.say(screen.words.paint(whole, Style.STRONG) + "\n")
            continue
        padded[1] = screen.words.paint(padded[1], STATES.get(GrantState(line[1]), Style.PLAIN))
        screen.say("  ".join([*padded, line[7]]).rstrip() + "\n")


def _row(grant: GrantDetail) -> list[str]:
    return [
        grant.state,
        one_line(grant.agent, 20),
        *(_share(grant, axis) for axis in AXES),
        age(grant.remaining.seconds) if grant.state is GrantState.ACTIVE else "-",
        one_line(grant.intent or "-", 60),
    ]


def _share(grant: GrantDetail, axis: str) -> str:
    """How much of an axis was used and given on, and of how much."""
    used = getattr(grant.used, axis) + (getattr(grant.given, axis) or 0)
    limit = getattr(grant.budget, axis)
    return f"{_amount(axis, used)}/{'-' if limit is None else _amount(axis, limit)}"


def _shares(grant: GrantDetail) -> str:
    """What was used of what there is, in a line."""
    amounts = [("calls", "calls"), ("tokens", "tokens"), ("usd", "micros")]
    said = [f"{name} {_share(grant, axis)}" for name, axis in amounts]
    return ", ".join([*said, f"time {_time(grant)}"])


def _time(grant: GrantDetail) -> str:
    return f"{age(grant.used.seconds)}/{age(grant.time_limit_seconds)}"


def _amount(axis: str, amount: int) -> str:
    return f"{amount / MICROS:.2f}" if axis == "micros" else str(amount)


# ---- show


def show(invocation: Invocation, command: GrantShow, screen: Screen) -> Exit:
    """Say all there is to say of a grant."""

    async def work(client: Client) -> Exit:
        grant = await _choose(client, command.grant)
        if invocation.json:
            screen.document(grant)
        else:
            for name, value in _lines(grant):
                screen.say(f"{name:<12} {value}\n")
        return Exit.OK

    return run_with_client(invocation, work)


def _lines(grant: GrantDetail) -> list[tuple[str, str]]:
    rate = grant.rate
    ended = "" if grant.cause is None else f" ({one_line(grant.cause, 40)})"
    lines = [
        ("grant", grant.grant_id),
        ("state", f"{grant.state}{ended}{', paused with its session' if grant.paused else ''}"),
        ("agent", one_line(grant.agent, 200)),
        ("intent", one_line(grant.intent, 200) or "-"),
        ("tools", _listed(grant.tools)),
        ("credentials", _listed(grant.credentials)),
        ("ceiling", grant.ceiling),
        ("calls", _share(grant, "calls")),
        ("tokens", _share(grant, "tokens")),
        ("usd", _share(grant, "micros")),
        ("time", _time(grant)),
        ("rate", "-" if rate is None else f"{rate.calls} in {rate.per_seconds} s"),
        ("refused", str(grant.used.refused)),
        ("revision", str(grant.revision)),
        ("made", f"{age(time.time() - grant.created_at)} ago"),
        ("out of", " ".join(grant.chain) or "-"),
        ("session", grant.session_id or "-"),
    ]
    if grant.warnings:
        lines.append(("nearly gone", " ".join(grant.warnings)))
    return lines


def _listed(rules: Sequence[str] | None) -> str:
    if rules is None:
        return "any"
    return ", ".join(one_line(rule, 200) for rule in rules) or "none"


# ---- raise, close, gc


def raise_limits(invocation: Invocation, command: GrantRaise, screen: Screen) -> Exit:
    """Give a grant more."""

    async def work(client: Client) -> Exit:
        grant = await _choose(client, command.grant)
        params = RaiseParams(
            grant_id=grant.grant_id,
            budget=budget(command.limits),
            time_limit_seconds=command.limits.seconds,
        )
        status = await client.raise_grant(params)
        if invocation.json:
            screen.document(status)
        else:
            now = await _choose(client, grant.grant_id)
            screen.say(f"{grant.grant_id}: revision {status.revision}, {_shares(now)}\n")
        return Exit.OK

    return run_with_client(invocation, work)


def close(invocation: Invocation, command: GrantClose, screen: Screen) -> Exit:
    """End grants and say how they were used."""

    async def work(client: Client) -> Exit:
        ended: list[tuple[str, GrantSummary]] = []
        for given in command.grants:
            grant = await _choose(client, given)
            ended.append((grant.grant_id, await client.close_grant(grant.grant_id)))
            if not invocation.json:
                screen.say(_closed_line(*ended[-1]) + "\n")
        if invocation.json:
            screen.document({"grants": [
                {"grantId": grant, "summary": summary} for grant, summary in ended
            ]})  # fmt: skip
        return Exit.OK

    return run_with_client(invocation, work)


def _closed_line(grant: str, summary: GrantSummary) -> str:
    part = "" if summary.utilisation is None else f" ({summary.utilisation:.0%})"
    refused = f", {summary.refused} refused" if summary.refused else ""
    return f"{grant}: closed after {summary.calls} calls{part} in {age(summary.seconds)}{refused}"


def gc(invocation: Invocation, screen: Screen) -> Exit:
    """Remove what ended long ago."""

    async def work(client: Client) -> Exit:
        removed = await client.forget_grants()
        if invocation.json:
            screen.document({"removed": removed})
        else:
            screen.say(f"{removed} removed\n")
        return Exit.OK

    return run_with_client(invocation, work)
