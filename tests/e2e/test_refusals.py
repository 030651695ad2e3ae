"""TE-01 to TE-07 at real sockets: what a refusal is to an agent, and what it is to an operator.

The refusals are provoked on a real daemon over each kind of socket, and every byte that came back
is looked at. There is no HTTP: a code, a word and whether to try again stand where seed 002 has
statuses (TE-05), and a param where it has a header (TE-06).
"""

import json
import re
import resource
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from moorage_daemon.grants.refusals import RefusalKind
from tests.daemon.grants.test_refusals import PASSING, TEXTS
from tests.e2e.commands import Shell
from tests.e2e.daemons import DaemonProcess, running
from tests.e2e.gateways import PATIENCE, WIRES, Dial, Json, Line, Told


CAP = 47  # active grants of one agent
BUDGET, RATE, SECONDS = 771, 653, 59
SETTINGS = f"grace_seconds = 1\n[grants]\nmax_per_agent = {CAP}\n"
TOOL, INTRUDER = "sekret_tool", "attacker-7c"
LOOK = 0.05  # seconds between two looks at what takes its time
MARGIN = 32 * 2**10  # bytes that the log may still grow by where the store may not
WORDS = {kind: kind.value for kind in RefusalKind} | {RefusalKind.AGENT_MISMATCH: "not_found"}


@contextmanager
def refusing_daemon() -> Generator[DaemonProcess]:
    with tempfile.TemporaryDirectory(prefix="moorage-") as path:
        config = Path(path) / "config.toml"
        config.write_text(SETTINGS)
        with running(Path(path) / "state", "--config", str(config)) as process:
            yield process


@pytest.fixture(scope="module")
def daemon() -> Iterator[DaemonProcess]:
    with refusing_daemon() as process:
        yield process
        assert process.stop() == 0


@pytest.fixture(scope="module", params=WIRES)
def wire(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def dial(wire: str) -> Dial:
    return WIRES[wire]


# ---- a store that cannot write


@contextmanager
def no_room(daemon: DaemonProcess) -> Generator[None]:
    """The store's file can get no longer, as on a full disk; the log still can."""
    [journal] = daemon.state_dir.glob("*-wal")
    limit = daemon.log.stat().st_size + MARGIN
    assert journal.stat().st_size > limit, "it is the store that is to fail"
    pid = daemon.process.pid
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, most))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))


def until_used(line: Line, grant: str) -> Told:
    """Use it as soon as that works again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        told = line.use(grant)
        if "result" in told.message:
            return told
        assert told.error["code"] == -31007
        assert time.monotonic() < deadline
        time.sleep(LOOK)  # noqa: TID251 - no event loop runs here


# ---- all of them


@dataclass(eq=False)
class Provoked:
    """What each refusal was told as, and what of it is for the operator alone."""

    told: dict[RefusalKind, Told] = field(default_factory=dict[RefusalKind, Told])
    detail: dict[RefusalKind, list[str]] = field(default_factory=dict[RefusalKind, list[str]])

    def note(self, kind: RefusalKind, told: Told, *detail: object) -> None:
        self.told[kind] = told
        self.detail[kind] = [str(each) for each in detail]


@pytest.fixture(scope="module")
def provoked(daemon: DaemonProcess, dial: Dial, wire: str) -> Provoked:
    found = Provoked()
    with dial(daemon) as line:
        short = line.grant(timeLimitSeconds=1)
        missing = "m" * 26
        found.note(RefusalKind.NOT_FOUND, line.use(missing), missing)
        fine = line.grant()
        told = line.use(fine, agent=INTRUDER)
        found.note(RefusalKind.AGENT_MISMATCH, told, fine, INTRUDER, "reader")
        found.note(RefusalKind.TOOL, line.use(fine, TOOL), fine, TOOL)
        spent = line.grant(budget={"calls": BUDGET})
        found.note(RefusalKind.BUDGET, batch(line, spent, BUDGET + 1), spent, BUDGET, BUDGET + 1)
        slow = line.grant(rate={"calls": RATE, "perSeconds": SECONDS})
        found.note(RefusalKind.RATE, batch(line, slow, RATE + 1), slow, RATE, RATE + 1, SECONDS)
        closed = line.grant()
        line.ask("_moorage/grant/close", grantId=closed)
        found.note(RefusalKind.CLOSED, line.use(closed), closed)
        session, own = session_on_a_grant(line)
        line.ask("_moorage/session/pause", sessionId=session)
        found.note(RefusalKind.PAUSED, line.use(own, agent="scripted"), own)
        line.ask("_moorage/session/resume", sessionId=session)
        many = f"many-{wire}"
        for _ in range(CAP):
            line.grant(agent=many)
        told = line.ask("_moorage/grant/create", agent=many, tools=[])
        found.note(RefusalKind.TOO_MANY, told, many, CAP)
        until_expired(line, short)
        found.note(RefusalKind.EXPIRED, line.use(short), short)
        with no_room(daemon):
            told = line.use(fine)
        found.note(RefusalKind.STORAGE, told, fine)
        until_used(line, fine)
    return found


def batch(line: Line, grant: str, count: int) -> Told:
    tools = ["read_file"] * count
    return line.ask("_moorage/grant/useBatch", grantId=grant, agent="reader", tools=tools)


def session_on_a_grant(line: Line) -> tuple[str, str]:
    """A session and the grant that was made for it."""
    wish = {"moorage": {"grant": {"tools": ["read_file"]}}}
    made = line.ask("session/new", cwd="/", mcpServers=[], _meta=wish).result
    session = made["sessionId"]
    grants: list[Json] = line.ask("_moorage/grant/list", agent="scripted").result["grants"]
    return session, next(g["grantId"] for g in grants if g["sessionId"] == session)


def until_expired(line: Line, grant: str) -> None:
    """Wait out the second that is the least a grant can be given."""
    deadline = time.monotonic() + PATIENCE
    while line.ask("_moorage/grant/get", grantId=grant).result["state"] != "expired":
        assert time.monotonic() < deadline
        time.sleep(LOOK)  # noqa: TID251 - no event loop runs here


ALL = pytest.mark.parametrize("kind", RefusalKind)


@ALL
def test_te01_sentence_is_exactly_this(provoked: Provoked, kind: RefusalKind) -> None:
    assert provoked.told[kind].error["message"] == TEXTS[kind]


@ALL
def test_te02_no_id_number_tool_or_agent_is_in_any_byte(
    provoked: Provoked, kind: RefusalKind
) -> None:
    everything = {each for detail in provoked.detail.values() for each in detail}

    assert len(everything) > len(RefusalKind)
    for each in everything:
        assert each.encode() not in provoked.told[kind].frame


@ALL
def test_te03_all_of_it_is_in_the_operators_log(
    daemon: DaemonProcess, provoked: Provoked, kind: RefusalKind
) -> None:
    """One line says what was refused and all there is to say of it."""
    lines = [
        json.loads(line.partition(SAID)[2])
        for line in daemon.log.read_text().splitlines()
        if SAID in line
    ]
    mine = [line for line in lines if line["kind"] == kind]
    detail = provoked.detail[kind]

    assert any(all(each in json.dumps(line) for each in detail) for line in mine), mine


SAID = "a grant does not permit that "


@ALL
def test_te04_frame_is_a_code_a_sentence_a_word_and_whether_to_try_again_to_the_byte(
    provoked: Provoked, kind: RefusalKind
) -> None:
    told = provoked.told[kind]
    code = -31007 if kind is RefusalKind.STORAGE else -31006
    again = "true" if kind in PASSING else "false"
    expected = (
        f'{{"jsonrpc":"2.0","id":{told.message["id"]},"error":{{"code":{code},'
        f'"message":"{TEXTS[kind]}","data":{{"code":"{WORDS[kind]}","retryable":{again}}}}}}}'
    )

    assert told.frame == expected.encode()


@ALL
def test_te05_every_refusal_stands_in_the_table_of_errors(
    provoked: Provoked, kind: RefusalKind
) -> None:
    error = provoked.told[kind].error
    if kind is RefusalKind.STORAGE:
        assert f"| {error['code']} | {error['data']['code']} |" in PROTOCOL
        return
    assert TABLE[error["message"]] == (error["data"]["code"], error["data"]["retryable"])


PROTOCOL = (Path(__file__).parents[2] / "protocol" / "README.md").read_text()
TABLE = {
    sentence: (word, bool(again))
    for sentence, word, again in re.findall(
        r"^\| `([^`]+)` \| `([a-z_]+)` \| (yes)? ?\|$", PROTOCOL, re.MULTILINE
    )
}


def test_te05_table_holds_no_more_than_can_happen(provoked: Provoked) -> None:
    told = {kind: answer.error for kind, answer in provoked.told.items()}

    assert {*told} == {*RefusalKind}
    assert {*TABLE} == {TEXTS[kind] for kind in RefusalKind if kind is not RefusalKind.STORAGE}
    words = [(error["code"], error["data"]["code"]) for error in told.values()]
    assert len({*words}) == len(words) - 1, "a wrong agent is answered like a missing grant"


def test_te06_id_names_a_grant_and_what_is_none_names_nothing(
    daemon: DaemonProcess, dial: Dial
) -> None:
    with dial(daemon) as line:
        grant = line.grant()
        line.use(grant)

        told = [line.use(text) for text in (f" {grant} ", "not-a-uuid", "", "m" * 26, "é" * 26)]

        assert line.ask("_moorage/grant/get", grantId=grant).result["used"]["calls"] == 1
    errors = [answer.error for answer in told]
    assert errors == len(errors) * [errors[0]]
    assert (errors[0]["code"], errors[0]["data"]["code"]) == (-31006, "not_found")


def test_te07_charge_that_was_not_written_was_not_made(dial: Dial, tmp_path: Path) -> None:
    """Not told, not counted, not there after a crash; the next one counts once."""
    with refusing_daemon() as daemon, dial(daemon) as line:
        for _ in range(CAP):
            line.grant(agent="filler")  # the store's file is to be longer than the log
        grant = line.grant()

        with no_room(daemon):
            first, second = line.use(grant), line.use(grant)
            used = line.ask("_moorage/grant/get", grantId=grant).result["used"]
            log = daemon.log.read_text()

        assert [told.error["message"] for told in (first, second)] == 2 * [TEXTS[STORAGE]]
        assert used["calls"] == 0
        assert f'{SAID}{{"kind": "storage", "grant": "{grant}"}}' in log
        until_used(line, grant)
        shell = Shell(daemon, tmp_path)
        shown = json.loads(shell.ok("grant", "show", grant, "--json"))
        assert (shown["used"]["calls"], shown["tools"]) == (1, ["read_file"])
        daemon.process.kill()
        daemon.process.wait()
        again = json.loads(shell.ok("grant", "show", grant, "--json"))
        assert again["used"]["calls"] == 1


STORAGE = RefusalKind.STORAGE


def test_te07_operator_sees_how_a_grant_was_used_and_refused(
    daemon: DaemonProcess, dial: Dial, tmp_path: Path
) -> None:
    with dial(daemon) as line:
        grant = line.grant(budget={"calls": BUDGET})
        line.use(grant)
        line.use(grant, TOOL)
        batch(line, grant, BUDGET)

    shown = json.loads(Shell(daemon, tmp_path).ok("grant", "show", grant, "--json"))

    assert (shown["agent"], shown["budget"]["calls"]) == ("reader", BUDGET)
    assert (shown["used"]["calls"], shown["used"]["refused"]) == (1, 2)
