"""What a command line means, and which ones mean nothing."""

from pathlib import Path

import pytest

from moorage_clients.cli.arguments import parse
from moorage_clients.cli.exits import Exit
from moorage_clients.cli.invocation import (
    Attach,
    Bridge,
    Cancel,
    Command,
    Configure,
    Consent,
    DaemonLogs,
    DaemonRun,
    DaemonStart,
    DaemonStatus,
    DaemonStop,
    Kill,
    Log,
    Ls,
    New,
    Prompt,
    Status,
)


ASK = Consent(allow=False, deny=False)


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
        ("prompt hello", Prompt(None, "hello", ASK, "queue", None)),
        ("prompt ab -", Prompt("ab", "-", ASK, "queue", None)),
        (
            "prompt ab hi --allow --on-busy refuse --timeout 1.5",
            Prompt("ab", "hi", Consent(allow=True, deny=False), "refuse", 1.5),
        ),
        ("attach", Attach(None, 0, watch=False, consent=ASK)),
        ("attach ab --from 12", Attach("ab", 11, watch=False, consent=ASK)),
        ("attach --from now --watch", Attach(None, None, watch=True, consent=ASK)),
        ("ls --all", Ls(everything=True)),
        ("log ab --kind a --kind b --from 3", Log("ab", ("a", "b"), 2)),
        ("cancel --scope all --generation 4", Cancel(None, "all", 4)),
        ("kill a b --reason why", Kill(("a", "b"), everything=False, reason="why")),
        ("kill --all", Kill((), everything=True, reason=None)),
        ("configure", Configure(None, ())),
        ("configure ab", Configure("ab", ())),
        ("configure model=a=b model_provider=",
         Configure(None, (("model", "a=b"), ("model_provider", "")))),
        ("status", Status()),
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
        ("prompt hi --timeout 0", "more than 0"),
        ("prompt hi --timeout nan", "more than 0"),
        ("attach --from x", "not a number"),
        ("attach --from -3", "not a number"),
        ("new --cwd /nowhere/at/all", "not a directory"),
        ("new --mode x", "invalid choice"),
        ("kill", "name the sessions, or say --all"),
        ("kill ab --all", "name the sessions, or say --all"),
        ("configure colour=red", "model, model_provider, temperature"),
        ("configure model=a b", "KEY=VALUE"),
        ("configure temperature=warm", "not a number"),
        ("configure temperature=nan", "not a number"),
        ("ls --js", "unrecognized"),
    ],
)
def test_words_that_mean_nothing_are_refused_with_a_reason(
    line: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(line.split())

    assert ended.value.code == Exit.USAGE
    assert problem in capsys.readouterr().err


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
    *("new", "prompt", "attach", "ls", "log", "cancel", "kill", "configure", "status", "acp"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([*command.split(), "--help"])

    assert ended.value.code == 0
    assert f"example:\n  moorage {command}" in capsys.readouterr().out


def test_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])

    said = capsys.readouterr().out
    assert all(f"  {code:<4} " in said for code in Exit)
