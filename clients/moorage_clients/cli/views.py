"""Commands that print what is on record of a session: usage, artifacts."""

import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from moorage_clients import records
from moorage_clients.cli.choosing import choose
from moorage_clients.cli.colour import Style
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import Artifacts, Invocation, Usage
from moorage_clients.cli.opening import run_with_client
from moorage_clients.cli.screen import Screen
from moorage_clients.client import Client
from moorage_clients.plain_text import counted, one_line
from moorage_protocol.acp import Cost
from moorage_protocol.moorage import NO_TOKENS, TokenUsage
from moorage_protocol.views import ArtifactRow, CostRow, UsageResult


NAME_WIDTH = 40  # characters of a model's or an artifact's name


# ---- usage


def usage(invocation: Invocation, command: Usage, screen: Screen) -> Exit:
    """Print what a session took."""

    async def work(client: Client) -> Exit:
        session = await choose(client, command.session, killed=True)
        found = await records.usage(client, session)
        rows = [row async for row in records.cost_rows(client, session)]
        if invocation.json:
            screen.document({
                "sessionId": session, "context": found.context, "tokens": found.tokens,
                "cost": found.cost, "records": rows,
            })  # fmt: skip
        else:
            _print_usage(found, rows, screen)
        return Exit.OK

    return run_with_client(invocation, work)


def _print_usage(found: UsageResult, rows: Sequence[CostRow], screen: Screen) -> None:
    context = found.context
    screen.say(
        f"context  {context.used:,} of {context.size:,} tokens ({context.fraction:.0%}), "
        f"{counted(context.turns, 'turn')}\n"
    )
    screen.say(f"tokens   {_tokens(found.tokens)}\n")
    screen.say(f"cost     {_money(found.cost)}\n")
    models: dict[str, _Sum] = {}
    for row in rows:
        name = one_line(f"{row.provider}/{row.model}", NAME_WIDTH)
        models.setdefault(name, _Sum()).add(row)
    for name, total in models.items():
        cost = None if total.micros is None else Cost(amount=total.micros / 1_000_000)
        said = counted(total.answers, "answer")
        answers = f"{said}, {_tokens(total.tokens)}, {_money(cost)}"
        screen.say(f"  {screen.words.paint(name, Style.STRONG)}: {answers}\n")


@dataclass
class _Sum:
    """What one model took."""

    answers: int = 0
    tokens: TokenUsage = NO_TOKENS
    micros: int | None = None

    def add(self, row: CostRow) -> None:
        self.answers += 1
        self.tokens += row.tokens
        if row.micros is not None:
            self.micros = (self.micros or 0) + row.micros


def _tokens(tokens: TokenUsage) -> str:
    beside = [
        f"{count:,} {what}"
        for count, what in (
            (tokens.cache_read_tokens, "cached"),
            (tokens.cache_write_tokens, "written to the cache"),
            (tokens.reasoning_tokens, "reasoned"),
        )
        if count
    ]
    shown = f"{tokens.input_tokens:,} in, {tokens.output_tokens:,} out"
    return f"{shown} ({', '.join(beside)})" if beside else shown


def _money(cost: Cost | None) -> str:
    if cost is None:
        return "unknown: no price is set"
    return f"{cost.amount:.6f}".rstrip("0").rstrip(".") + f" {one_line(cost.currency, 8)}"


# ---- artifacts


def artifacts(invocation: Invocation, command: Artifacts, screen: Screen) -> Exit:
    """List a session's artifacts, or print one."""

    async def work(client: Client) -> Exit:
        session = await choose(client, command.session, killed=True)
        rows = [row async for row in records.artifacts(client, session)]
        if command.get is not None:
            await _print_artifact(client, rows, command.get)
        elif invocation.json:
            screen.document({"sessionId": session, "artifacts": rows})
        else:
            _print_rows(rows, screen)
        return Exit.OK

    return run_with_client(invocation, work)


async def _print_artifact(client: Client, rows: Sequence[ArtifactRow], seq: int) -> None:
    """Write its bytes as they are: whoever wants them in a terminal has asked for that."""
    found = next((row for row in rows if row.seq == seq), None)
    if found is None:
        known = ", ".join(str(row.seq) for row in rows) or "none"
        raise Failure(Exit.FAILED, f"There is no artifact {seq}; there are: {known}.")
    async with aclosing(records.artifact(client, found.uri)) as parts:
        async for part in parts:
            sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


def _print_rows(rows: Sequence[ArtifactRow], screen: Screen) -> None:
    if not rows:
        screen.note("No artifacts.")
        return
    header = f"{'SEQ':>6}  {'TURN':>4}  {'BYTES':>12}  {'TOOL':<10}  NAME"
    screen.say(screen.words.paint(header, Style.STRONG) + "\n")
    for row in rows:
        turn = "-" if row.generation is None else str(row.generation)
        tool = one_line(row.tool if row.kind == "artifact" else row.kind, 10)
        name = one_line(row.name, NAME_WIDTH)
        screen.say(f"{row.seq:>6}  {turn:>4}  {row.size:>12,}  {tool:<10}  {name}\n")
