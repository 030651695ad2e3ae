"""What a command line means, and which ones mean nothing."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from moorage_clients.cli.arguments import parse
from moorage_clients.cli.exits import Exit
from moorage_clients.cli.invocation import (
    Artifacts,
    Attach,
    Bridge,
    Cancel,
    Command,
    Completion,
    ConfigCheck,
    ConfigShow,
    Configure,
    Consent,
    DaemonLogs,
    DaemonRun,
    DaemonStart,
    DaemonStatus,
    DaemonStop,
    Delete,
    Doctor,
    Export,
    GrantClose,
    GrantGc,
    GrantList,
    GrantRaise,
    GrantShow,
    Import,
    Kill,
    Limits,
    Log,
    Ls,
    New,
    Pause,
    Prompt,
    Remote,
    Resume,
    Status,
    StoreCheck,
    StoreGc,
    StoreHealth,
    Usage,
)
from moorage_clients.cli.keys import KINDS
from moorage_clients.cli.parsing import HELP_WIDTH
from moorage_daemon.store.model import Kind


ASK = Consent(allow=False, deny=False)
YES = Consent(allow=True, deny=False)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("acp", Bridge()),
        ("daemon start", DaemonStart(())),
        ("daemon start --no-websocket --verbose", DaemonStart(("--no-websocket", "--verbose"))),
        ("daemon run --websocket 127.0.0.1:1", DaemonRun(("--websocket", "127.0.0.1:1"))),
        ("daemon stop", DaemonStop()),
        ("daemon status", DaemonStatus()),
        ("daemon logs -f -n 5", DaemonLogs(follow=True, lines=5)),
        ("new --cwd / --mode chat", New("/", "chat")),
        (
            "new --cwd / --tools Read,Bash(git:*),X(a,b) --calls 50 --tokens 200k --usd 2.5",
            New(
                "/",
                "code",
                Limits(("Read", "Bash(git:*)", "X(a,b)"), 50, 200_000, 2_500_000, None),
            ),
        ),
        ("new --cwd / --any-tool --tokens 1.5M", New("/", "code", Limits(tokens=1_500_000))),
        ("new --cwd / --any-tool", New("/", "code", Limits())),
        ("prompt k3f2 --allow hi", Prompt("k3f2", "hi", YES, "queue", None)),
        ("prompt k3f2 --allow -", Prompt("k3f2", "-", YES, "queue", None)),
        ("prompt k3f2 --allow -- --hi", Prompt("k3f2", "--hi", YES, "queue", None)),
        ("kill k3f2 --reason why x7ab", Kill(("k3f2", "x7ab"), False, "why")),
        ("delete k3f2 --yes x7ab", Delete(("k3f2", "x7ab"), True)),
        ("configure k3f2 --json name=x", Configure("k3f2", (("name", "x"),))),
        ("grant close k3f2 --json x7ab", GrantClose(("k3f2", "x7ab"))),
        ("new --cwd / --tools= --minutes 2", New("/", "code", Limits((), seconds=120))),
        ("grant list", GrantList(None)),
        ("grant list --agent a", GrantList("a")),
        ("grant show ab", GrantShow("ab")),
        ("grant raise ab --calls 9 --minutes 1", GrantRaise("ab", Limits(None, 9, None, None, 60))),
        ("grant close ab cd", GrantClose(("ab", "cd"))),
        ("grant gc", GrantGc()),
        ("prompt hello", Prompt(None, "hello", ASK, "queue", None)),
        ("prompt ab -", Prompt("ab", "-", ASK, "queue", None)),
        (
            "prompt ab hi --allow --on-busy refuse --timeout 1.5",
            Prompt("ab", "hi", Consent(allow=True, deny=False), "refuse", 1.5),
        ),
        (
            "prompt hi --secret-file a --secret-file -",
            Prompt(None, "hi", ASK, "queue", None, ("a", "-")),
        ),
        ("attach", Attach(None, 0, watch=False, consent=ASK)),
        ("attach ab --from 12", Attach("ab", 11, watch=False, consent=ASK)),
        ("attach --from now --watch", Attach(None, None, watch=True, consent=ASK)),
        ("ls --all", Ls(everything=True)),
        ("log ab --kind ask --kind cost --from 3", Log("ab", ("ask", "cost"), 2)),
        ("cancel --scope all --generation 4", Cancel(None, "all", 4)),
        ("kill a b --reason why", Kill(("a", "b"), everything=False, reason="why")),
        ("delete a b --yes", Delete(("a", "b"), is_sure=True)),
        ("delete a", Delete(("a",), is_sure=False)),
        ("pause k3f2", Pause("k3f2")),
        ("pause", Pause(None)),
        ("resume k3f2", Resume("k3f2")),
        ("kill --all", Kill((), everything=True, reason=None)),
        ("configure", Configure(None, ())),
        ("configure ab", Configure("ab", ())),
        ("configure model=a=b model_provider=",
         Configure(None, (("model", "a=b"), ("model_provider", "")))),
        ("configure ab name=x label.a=b=c temperature=1",
         Configure("ab", (("name", "x"), ("label.a", "b=c"), ("temperature", "1")))),
        ("usage", Usage(None)),
        ("usage ab", Usage("ab")),
        ("artifacts ab --get 17", Artifacts("ab", 17)),
        ("artifacts", Artifacts(None, None)),
        ("export ab", Export("ab", None)),
        ("export -o /f", Export(None, "/f")),
        ("import - --keep-id", Import("-", keep_id=True)),
        ("import /f", Import("/f", keep_id=False)),
        ("import /f --keep-allowed", Import("/f", keep_id=False, keep_allowed=True)),
        ("status", Status()),
        ("store health", StoreHealth()),
        ("store check", StoreCheck()),
        ("store gc", StoreGc()),
        ("config check", ConfigCheck(())),
        ("config show --config /c.toml --state-dir /s",
         ConfigShow(("--config", "/c.toml", "--state-dir", "/s"))),
        ("doctor --config /c.toml", Doctor(("--config", "/c.toml"))),
        ("completion zsh", Completion("zsh")),
    ],
)  # fmt: skip
def test_words_become_a_command(line: str, command: Command) -> None:
    assert parse(line.split()).command == command


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "required: COMMAND"),
        ("nonsense", "invalid choice"),
        ("daemon", "required: VERB"),
        ("daemon start --websocket a:1 --no-websocket", "not allowed with"),
        ("prompt", "required"),
        ("prompt ab hello there", "put the text in quotes"),
        ("prompt hi --allow --deny", "not allowed with"),
        ("prompt - --secret-file -", "stdin can be read only once"),
        ("prompt hi --secret-file - --secret-file -", "stdin can be read only once"),
        ("prompt hi --timeout 0", "more than 0"),
        ("prompt hi --timeout nan", "more than 0"),
        ("attach --from x", "not a number"),
        ("attach --from -3", "not a number"),
        ("new --cwd /nowhere/at/all", "not a directory"),
        ("new --mode x", "invalid choice"),
        ("new --calls 5", "say which --tools it may use, or --any-tool"),
        ("new --tools Read --any-tool", "not allowed with"),
        ("new --any-tool --tokens 1.5", "not a number of tokens"),
        ("new --any-tool --tokens -5", "not a number of tokens"),
        ("new --any-tool --usd 0.0000001", "not an amount of dollars"),
        ("new --any-tool --usd nan", "not an amount of dollars"),
        ("new --any-tool --minutes 0", "minutes that is more than 0"),
        ("new --any-tool --minutes nan", "minutes that is more than 0"),
        ("new --any-tool --minutes soon", "minutes that is more than 0"),
        ("new --any-tool --minutes 1441", "at most 1440"),
        ("grant raise ab --minutes 5000", "at most 1440"),
        ("grant", "required: VERB"),
        ("grant raise ab", "say what it gets more of"),
        ("grant close", "required"),
        ("log --kind verdikt", "choose from 'message', 'tool'"),
        ("kill", "name the sessions, or say --all"),
        ("kill ab --all", "name the sessions, or say --all"),
        ("configure colour=red", "model, model_provider, temperature"),
        ("configure model=a b", "KEY=VALUE"),
        ("configure temperature=warm", "not a number"),
        ("configure temperature=nan", "not a number"),
        ("configure label.=x", "label.NAME"),
        ("artifacts --get x", "not a number"),
        ("import", "required"),
        ("ls --js", "unrecognized"),
        ("ls --js", "usage: moorage ls"),
        ("prompt a b c", " [SESSION] TEXT\n"),
        ("configure --js", " [SESSION] [KEY=VALUE ...]\n"),
        ("prompt k3f2 --allow --js hi", "unrecognized arguments: --js"),
        ("grant gc k3f2", "unrecognized arguments: k3f2"),
        ("completion csh", "invalid choice"),
        ("config", "required: VERB"),
        ("ls --token-file t", "--token-file is for --connect"),
        ("ls --connect ws://127.0.0.1:1/acp", "--token-file FILE too"),
        ("ls --connect unix:/s --token-file t", "takes no token"),
        ("daemon stop --connect unix:/s", "about this machine"),
        *[
            (f"ls --token-file t --connect {address}", problem)
            for address, problem in (
                ("ws://moor.example.org/acp", "ssh -L"),
                ("ws://192.0.2.1:1/acp", "ssh -L"),
                ("ws://localhost.example.org:1/acp", "ssh -L"),
                ("wss://me:secret@moor.example.org/acp", "holds no secret"),
                ("ws://127.0.0.1:1/acp?token=secret", "holds no secret"),
                ("ws://127.0.0.1:1/acp#secret", "holds no secret"),
                ("ws://127.0.0.1:99999/acp", "no address"),
                ("ws://[::1/acp", "no address"),
                ("ws:///acp", "write ws://"),
                ("http://127.0.0.1:1/acp", "write ws://"),
                ("127.0.0.1:1", "write ws://"),
            )
        ],
    ],
)
def test_words_that_mean_nothing_are_refused_with_a_reason(
    line: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(line.split())

    assert ended.value.code == Exit.USAGE
    assert problem in capsys.readouterr().err


def test_log_can_be_asked_for_every_kind_that_a_daemon_writes() -> None:
    assert sorted(KINDS) == sorted(Kind)


@pytest.mark.parametrize("line", ["--json --state-dir /s ls", "ls --state-dir /s --json"])
def test_global_flags_stand_before_or_behind_the_command(line: str) -> None:
    invocation = parse(line.split())

    assert (invocation.state_dir, invocation.json) == ("/s", True)


def test_state_directory_comes_from_the_environment_or_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOORAGE_STATE_DIR", "/elsewhere")
    assert parse(["ls"]).state_dir == "/elsewhere"

    monkeypatch.delenv("MOORAGE_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert parse(["ls"]).state_dir == str(tmp_path / "moorage")


def test_relative_paths_mean_the_callers_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    invocation = parse(["--state-dir", "s", "daemon", "start", "--config", "c.toml"])

    assert invocation.state_dir == str(tmp_path / "s")
    assert invocation.command == DaemonStart(("--config", str(tmp_path / "c.toml")))


COMMANDS = [
    *("daemon start", "daemon run", "daemon stop", "daemon status", "daemon logs"),
    *("new", "prompt", "attach", "ls", "log", "cancel", "pause", "resume", "kill", "delete"),
    *("configure", "status"),
    "acp",
    *("config check", "config show", "doctor", "completion"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_and_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([*command.split(), "--help"])

    said = capsys.readouterr().out
    assert ended.value.code == 0
    examples, _, codes = said.partition("examples:\n")[2].partition("\n\nexit codes:\n")
    assert f"moorage {command}" in examples
    assert f"  {Exit.OK:<4} " in codes
    assert f"  {Exit.USAGE:<4} " in codes
    assert max(map(len, said.splitlines())) <= HELP_WIDTH


def examples() -> list[str]:
    """Every example of every help text that is a plain call of the command."""
    found: list[str] = []
    for command in COMMANDS:
        output = io.StringIO()
        with pytest.raises(SystemExit), contextlib.redirect_stdout(output):
            parse([*command.split(), "--help"])
        shown = output.getvalue().partition("examples:\n")[2].partition("\n\n")[0]
        found += [line.strip() for line in shown.splitlines()]
    return [line.partition("  ")[0] for line in found if line.startswith("moorage ")]


@pytest.mark.parametrize("example", examples())
def test_every_example_is_a_command(example: str) -> None:
    words = shlex.split(re.split(r" [|>] ", example)[0].replace("~/project", "/"))

    parse(words[1:])


def test_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])

    said = capsys.readouterr().out
    assert all(f"  {code:<4} " in said for code in Exit)


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("ws://127.0.0.1:1/acp", "ws://127.0.0.1:1/acp"),
        ("ws://localhost:1", "ws://localhost:1/acp"),
        ("ws://[::1]:1/", "ws://[::1]:1/acp"),
        ("wss://moor.example.org/at/acp", "wss://moor.example.org/at/acp"),
    ],
)
def test_daemon_can_be_named_by_its_address(address: str, meant: str) -> None:
    invocation = parse(["ls", "--connect", address, "--token-file", "t"])

    assert invocation.remote == Remote(meant, "t")


def test_daemon_can_be_named_by_its_socket() -> None:
    assert parse(["--connect", "unix:/s", "ls"]).remote == Remote("unix:/s", None)


def test_secret_in_an_address_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["ls", "--token-file", "t", "--connect", "ws://127.0.0.1:1/acp?token=canary"])

    assert "canary" not in capsys.readouterr().err


def test_directory_of_a_session_elsewhere_need_not_be_here() -> None:
    invocation = parse(["new", "--connect", "unix:/s", "--cwd", "/nowhere/at/all"])

    assert invocation.command == New("/nowhere/at/all", "code")
