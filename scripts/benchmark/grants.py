"""What a grant costs: the decision alone, and with the charge on disk from many sessions at once.

The decision stands beside a plain counter in a dict: what a program does that checks nothing but a
number. The durable one is the daemon's own way, on its default store, without the wire.
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio

from moorage_daemon.grants.account import Account
from moorage_daemon.grants.accounts import Accounts
from moorage_daemon.grants.calls import Call, Shell
from moorage_daemon.grants.grant import Grant, make_grant
from moorage_daemon.grants.guard import decide
from moorage_daemon.grants.moments import MachineClock
from moorage_daemon.grants.policy import Policy
from moorage_daemon.ledger.holding import Holding
from moorage_daemon.ledger.ledger import Ledger
from moorage_daemon.log.committer import Committer
from moorage_daemon.store.sqlite import open_sqlite
from moorage_protocol.config import Permissions
from moorage_protocol.grants import Budget, RateLimit
from scripts.benchmark.figures import spread
from scripts.benchmark.wire import Json


AGENT = "reader"
TOOLS = ("Read(src/**)", "Bash(git:*)", "read_file", "list_dir")
RULES = Permissions(
    deny=("Bash(rm:*)", "Bash(sudo:*)", "Read(secrets/**)"),
    ask=("Bash(git push:*)", "Write(.github/**)"),
    allow=("Bash(git:*)", "Bash(ls:*)", "Bash(cargo test:*)", "Read(src/**)", "Edit(src/**)"),
)
COMMANDS = (
    "git status",
    "git diff --stat",
    "cargo test --workspace",
    "ls -la src",
    "cd src && make",
)
SESSIONS = 64
GROUP = 1000  # decisions that are timed as one: a single one is shorter than the clock is exact


def grant_figures(rounds: int) -> Json:
    """All of it; the decisions in microseconds."""
    one, ten = [Call("read_file")], [Call("read_file")] * 10
    shell = [Call("Bash", Shell("git log --oneline -5"))]
    return {
        "decision_us": _decisions(one, rounds),
        "decision_of_a_command_us": _decisions(shell, rounds),
        "ten_rules_about_a_command_us": _ruled(rounds),
        "batch_of_ten_us": _decisions(ten, rounds),
        "dict_counter_us": _microseconds(_counter(), rounds),
        "durable_charge_64_sessions_ms": trio.run(_durable, max(20, rounds)),
    }


def _grant() -> Grant:
    return make_grant(
        agent=AGENT,
        tools=TOOLS,
        budget=Budget(calls=2**50),
        rate=RateLimit(calls=100_000, per_seconds=1),
        seconds=86_400,
    )


def _decisions(calls: list[Call], rounds: int) -> Json:
    clock = MachineClock()
    account: Account = Accounts(1).open("grant", "local", _grant(), clock())
    now = clock()

    def act() -> None:
        decide(account, AGENT, calls, now)

    return _microseconds(act, rounds)


def _ruled(rounds: int) -> Json:
    """Of commands that agents send again and again."""
    policy, calls = Policy(RULES), [Call("Bash", Shell(command)) for command in COMMANDS]
    turn = itertools.cycle(calls)
    return _microseconds(lambda: policy.rule(next(turn)), rounds)


def _counter() -> Callable[[], None]:
    used = {"grant": 0}

    def act() -> None:
        if used["grant"] + 1 <= 2**50:
            used["grant"] += 1

    return act


def _microseconds(act: Callable[[], object], rounds: int) -> Json:
    """The middle and the slowest of groups, per act."""
    times: list[float] = []
    for _ in range(rounds):
        began = time.process_time()  # what else runs here is none of it
        for _ in range(GROUP):
            act()
        times.append((time.process_time() - began) / GROUP * 1e6)
    times.sort()
    return {"p50": round(times[len(times) // 2], 2), "max": round(times[-1], 2)}


async def _durable(rounds: int) -> Json:
    """From the decision until it is on disk, in many sessions at once."""
    times: list[float] = []
    with tempfile.TemporaryDirectory(prefix="moorage-bench-grants-") as place:
        async with open_sqlite(Path(place) / "sessions.db") as store:
            committer = Committer(store, patience=5.0)
            ledger = Ledger(Accounts(SESSIONS), committer, MachineClock())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(committer.run)
                holdings = [ledger.open("local", "bench", _grant()) for _ in range(SESSIONS)]
                async with trio.open_nursery() as sessions:
                    for holding in holdings:
                        sessions.start_soon(_charge, ledger, holding, rounds, times)
                committer.close()
                await committer.written()
    return spread(times)


async def _charge(ledger: Ledger, holding: Holding, rounds: int, times: list[float]) -> None:
    for _ in range(rounds):
        began = time.perf_counter()
        await ledger.charge(holding, AGENT, [Call("read_file")]).durable()
        times.append(time.perf_counter() - began)
