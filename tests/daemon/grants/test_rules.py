"""Rules about tools, files, addresses and servers; and what a policy of many makes of a call."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from moorage_daemon.grants.calls import Argv, Call, File, Shell, Words, file_at, with_links
from moorage_daemon.grants.globs import matches_path
from moorage_daemon.grants.policy import NO_RULES, Policy, Ruling, Say, strictest
from moorage_daemon.grants.rules import (
    COMMAND_TOOLS,
    FILE_TOOLS,
    Allowlist,
    BadRule,
    read_call,
    read_rule,
)
from moorage_daemon.grants.touching import Touch
from moorage_daemon.tools.workspace import Workspace
from moorage_protocol.config import Asked, Confirmation, OnTimeout, PermissionDefault, Permissions
from moorage_protocol.grants import TOOLS


CWD = "/home/me/work"


def reading(path: str, resolved: str | None = None) -> Call:
    return Call("Read", file_at(CWD, path, resolved))


def bash(command: str) -> Call:
    return Call("Bash", Shell(command))


def policy(
    *,
    deny: Sequence[str] = (),
    allow: Sequence[str] = (),
    ask: Sequence[str] = (),
    default: PermissionDefault | None = None,
) -> Policy:
    return Policy(
        Permissions(deny=tuple(deny), allow=tuple(allow), ask=tuple(ask), default=default)
    )


# ---- reading rules


def test_every_tool_that_rules_treat_apart_is_among_those_that_clients_know() -> None:
    assert set(TOOLS) >= FILE_TOOLS | COMMAND_TOOLS


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Bash(",
        "Bash()",
        "Bash(*)",
        "Bash(git *)",
        "Bash(:*)",
        "Bash(git; ls:*)",
        "Bash($x:*)",
        "Bash(git:*) ",
        "Run(*)",
        "Ba sh",
        "*",
        "Read*",
        "mcp__*",
        "mcp__a__b__*",
        "mcp__a__*(x)",
        "Read(../x)",
        "Read(a//b)",
        "Fetch(domain:)",
        "Fetch(domain:a b)",
        "Bash(a\nb)",
        "x" * 1001,
        "x" * 201,
    ],
)
def test_rule_that_means_nothing_clear_is_refused(text: str) -> None:
    with pytest.raises(BadRule):
        read_rule(text)


@pytest.mark.parametrize("tool", ["Read", "read_file", "fs.read", "a:b/c", "mcp__files__read", "Ω"])
def test_tool_without_a_pattern_is_that_tool_and_no_other(tool: str) -> None:
    rule = read_rule(tool)

    assert rule.permits(Call(tool))
    assert not rule.permits(Call(tool + "x"))
    assert not rule.permits(Call(tool + "__x"))
    assert not rule.permits(Call(tool.swapcase()))


@pytest.mark.parametrize("text", ["mcp__pencil", "mcp__pencil__*"])
def test_rule_of_a_server_is_about_that_server_only(text: str) -> None:
    rule = read_rule(text)

    assert rule.permits(Call("mcp__pencil__draw"))
    assert not rule.permits(Call("mcp__pencilevil__draw"))
    assert not rule.permits(Call("mcp__pencil_2__draw"))
    assert not rule.permits(Call("pencil__draw"))


def test_call_of_which_nothing_is_known_is_not_within_a_pattern() -> None:
    rule = read_rule("Bash(git:*)")

    assert not rule.permits(Call("Bash"))
    assert rule.touches(Call("Bash")) is Touch.UNSURE


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("Read", Call("Read")),
        ("Bash(git log)", Call("Bash", Shell("git log"))),
        ("Run(git log)", Call("Run", Argv(("git", "log")))),
        ("Run(git; log)", Call("Run", Argv(()))),
        ("Read(src/../a)", Call("Read", File(("a",), ("a", "/workspace/a")))),
        ("Fetch(https://a.org)", Call("Fetch", Words("https://a.org"))),
        ("odd(name", Call("odd(name")),
    ],
)
def test_call_is_read_as_an_outside_program_names_it(text: str, call: Call) -> None:
    assert read_call(text) == call


@pytest.mark.parametrize("text", ["", "a\nb", "x" * 1001])
def test_call_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(BadRule):
        read_call(text)


# ---- files


@pytest.mark.parametrize(
    ("pattern", "path", "permitted"),
    [
        ("src/**", "src/a.py", True),
        ("src/**", "src/deep/er/a.py", True),
        ("src/**", "src", True),
        ("src/**", "srcx/a.py", False),
        ("src/**", "./src/./a.py", True),
        ("src/**", "other/../src/a.py", True),
        ("src/**", "src/../secret", False),
        ("src/**", "src/../../etc/passwd", False),
        ("src/**", "/etc/passwd", False),
        ("src/**", CWD + "/src/a.py", True),
        ("src/**", CWD + "x/src/a.py", False),
        ("**", "a/b", True),
        ("**", "..", False),
        ("**", "/", False),
        ("**", "../work/a", True),
        ("*.md", "a.md", True),
        ("*.md", "docs/a.md", False),
        ("**/*.md", "docs/a.md", True),
        ("**/*.md", "a.md", True),
        ("./src/**/", "src/x", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[ab].txt", "b.txt", True),
        ("[!ab].txt", "b.txt", False),
        ("[a-c].txt", "b.txt", True),
        ("[.txt", "[.txt", True),
        ("src/x.py", "src/x.py/", True),
    ],
)
def test_path_is_compared_after_normalisation_and_inside_only(
    pattern: str, path: str, permitted: bool
) -> None:
    assert read_rule(f"Read({pattern})").permits(reading(path)) is permitted


def test_link_that_leads_elsewhere_is_not_permitted_by_its_name() -> None:
    rule = read_rule("Read(src/**)")

    assert rule.permits(reading("src/link", CWD + "/src/real"))
    assert not rule.permits(reading("src/link", "/etc/passwd"))
    assert not rule.permits(reading("src/link", CWD + "/secret"))


def test_link_to_what_is_denied_is_denied() -> None:
    rule = read_rule("Read(**/.env)")

    assert rule.touches(reading("innocent", CWD + "/.env")) is Touch.YES
    assert rule.touches(reading(".env")) is Touch.YES
    assert rule.touches(reading("/srv/.env")) is Touch.YES
    assert rule.touches(reading("a.env")) is Touch.NO


def test_way_back_from_a_link_is_judged_by_the_file_that_is_opened(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("nobody's")
    (tmp_path / "src/link").symlink_to("../secret")
    path = "src/link/../secret/key"

    with Workspace(tmp_path).open_beneath(path) as fd:
        assert os.read(fd, 100) == b"nobody's"  # the link is followed before the way back is taken
    file = with_links(str(tmp_path), file_at(str(tmp_path), path))

    assert read_rule("Read(secret/**)").touches(Call("Read", file)) is Touch.YES
    assert not read_rule("Read(src/**)").permits(Call("Read", file))


def test_path_that_is_none_leads_nowhere(tmp_path: Path) -> None:
    file = file_at(str(tmp_path), "src/a\0b")

    assert with_links(str(tmp_path), file) == file


def test_two_spellings_of_one_accent_are_one_name() -> None:
    assert read_rule("Read(caf\u00e9)").touches(reading("cafe\u0301")) is Touch.YES


@pytest.mark.parametrize("tool", ["Write", "Edit"])
def test_what_git_would_start_is_changed_only_where_that_is_written(tool: str) -> None:
    hook = Call(tool, file_at(CWD, "sub/.git/hooks/pre-commit"))

    assert not read_rule(f"{tool}(**)").permits(hook)
    assert read_rule(f"{tool}(**/.git/hooks/*)").permits(hook)
    assert read_rule(f"{tool}(**)").permits(Call(tool, file_at(CWD, "sub/.github/x")))


def test_long_pattern_against_a_long_name_comes_to_an_end() -> None:
    assert not matches_path("*a" * 400, "a" * 900 + "b")
    assert not matches_path("**/a/" * 100 + "b", "a/" * 400 + "c")


# ---- addresses and other words


@pytest.mark.parametrize(
    ("rule", "address", "permitted"),
    [
        ("Fetch(domain:example.org)", "https://example.org/x", True),
        ("Fetch(domain:example.org)", "https://EXAMPLE.org/x", True),
        ("Fetch(domain:example.org)", "https://www.example.org/", False),
        ("Fetch(domain:*.example.org)", "https://www.example.org/", True),
        ("Fetch(domain:*.example.org)", "https://example.org/", False),
        ("Fetch(domain:*.example.org)", "https://evilexample.org/", False),
        ("Fetch(domain:example.org)", "https://example.org@evil.net/", False),
        ("Fetch(domain:example.org)", "https://evil.net\\@example.org/", False),
        ("Fetch(domain:example.org)", "https://evil.net/#@example.org/", False),
        ("Fetch(domain:example.org)", "https://example.org.evil.net/", False),
        ("Fetch(domain:example.org)", "https://[x", False),
        ("Fetch(domain:example.org)", "https://exam\tple.org/", False),
        ("Fetch(https://a.org/x)", "https://a.org/x", True),
        ("Fetch(https://a.org/x)", "https://a.org/xy", False),
        ("Delegate(reviewer)", "reviewer", True),
        ("Recall(notes:*)", "notes of june", True),
        ("Recall(notes:*)", "notesx", False),
    ],
)
def test_words_are_what_they_say(rule: str, address: str, permitted: bool) -> None:
    read = read_rule(rule)

    assert read.permits(Call(read.tool, Words(address))) is permitted


# ---- lists


def test_list_of_none_and_list_of_any() -> None:
    assert Allowlist(None).permits(Call("anything"))
    assert not Allowlist(()).permits(Call("anything"))
    assert Allowlist(None).includes(Allowlist(None))
    assert not Allowlist(("Read",)).includes(Allowlist(None))
    assert Allowlist(()).includes(Allowlist(()))


# ---- policies


def test_deny_beats_everything() -> None:
    rules = policy(deny=["Bash(git push:*)"], allow=["Bash", "Bash(git push origin main)"])

    assert rules.rule(bash("git push origin main")) == Ruling(Say.DENY, "Bash(git push:*)")
    assert rules.rule(bash("git log && git push")).say is Say.DENY
    assert rules.rule(bash("git log")) == Ruling(Say.ALLOW, "Bash")


@pytest.mark.parametrize(
    ("command", "say"),
    [("git log", Say.ALLOW), ("git push", Say.ASK), ("ls", Say.ASK), ("git log; ls", Say.ASK)],
)
def test_of_allow_and_ask_the_one_that_says_more_counts(command: str, say: Say) -> None:
    rules = policy(allow=["Bash(git:*)"], ask=["Bash", "Bash(git push:*)"])

    assert rules.rule(bash(command)).say is say


def test_of_two_that_say_the_same_the_asking_one_counts() -> None:
    assert policy(allow=["Read"], ask=["Read"]).rule(reading("x")).say is Say.ASK


def test_allowed_as_a_whole_is_asked_about_where_deny_cannot_tell() -> None:
    rules = policy(allow=["Bash"], deny=["Bash(rm:*)"])

    assert rules.rule(bash("$x")) == Ruling(Say.ASK, "Bash(rm:*)")
    assert rules.rule(bash("ls $HOME")).say is Say.ALLOW


@pytest.mark.parametrize(
    ("default", "say"),
    [
        (None, Say.NOTHING),
        (PermissionDefault.ALLOW, Say.ALLOW),
        (PermissionDefault.ASK, Say.ASK),
        (PermissionDefault.DENY, Say.DENY),
    ],
)
def test_call_that_no_rule_is_about(default: PermissionDefault | None, say: Say) -> None:
    rules = Policy(Permissions(allow=("Read",), default=default))

    assert rules.rule(bash("ls")) == Ruling(say)


def test_stored_policy_never_widens_the_one_that_holds_now() -> None:
    stored = policy(allow=["Bash"])
    current = policy(deny=["Bash(curl:*)"], ask=["Bash(git push:*)"])

    assert strictest([stored, current], bash("curl x")).say is Say.DENY
    assert strictest([current, stored], bash("git push")).say is Say.ASK
    assert strictest([stored, current], bash("ls")).say is Say.ALLOW
    assert strictest([stored, NO_RULES], bash("ls")).say is Say.ALLOW
    assert strictest([stored, policy(default=PermissionDefault.ASK)], bash("ls")).say is Say.ASK
    assert strictest([], bash("ls")).say is Say.NOTHING


def test_policy_with_a_rule_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(BadRule):
        policy(allow=["Bash(*)"])


def test_question_waits_unless_something_else_is_written() -> None:
    assert Confirmation() == Confirmation(
        ask=Asked.CONTROLLERS, timeout_seconds=None, on_timeout=OnTimeout.REJECT
    )
