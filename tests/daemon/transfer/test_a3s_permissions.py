"""Rules of the a3s layout here: what they say, and that nothing is possible that was not there."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from moorage_daemon.grants.calls import Call, Shell, Words, file_at
from moorage_daemon.grants.policy import Policy, Say
from moorage_daemon.transfer.a3s_permissions import TOOLS, A3sPolicy, mapped
from moorage_protocol.config import PermissionDefault, Permissions


Json = dict[str, Any]
CWD = "/work"


def here(policy: Json, *, allowing: bool = True) -> tuple[Permissions, list[str]]:
    notes: list[str] = []
    read = msgspec.convert(policy, A3sPolicy)
    return mapped(read, allowing=allowing, notes=notes), notes


# What is written there, what stands here: deny, allow, ask; and how many notes.
TABLE: list[tuple[Json, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], int]] = [
    ({"allow": ["Bash(cargo:*)"]}, ((), ("Bash(cargo:*)",), ()), 0),
    ({"allow": ["bash(cargo test)"]}, ((), ("Bash(cargo test)",), ()), 0),
    ({"allow": ["Bash(*)"]}, ((), ("Bash",), ()), 0),
    ({"allow": ["Grep(*)", "Glob", "LS(src/**)"]}, ((), ("Search", "Glob", "List(src/**)"), ()), 0),
    ({"allow": ["Read(src/**/*.rs)"]}, ((), ("Read(src/**/*.rs)",), ()), 0),
    ({"allow": ["mcp__pencil", "mcp__Pen__draw"]}, ((), ("mcp__pencil", "mcp__Pen__draw"), ()), 0),
    ({"allow": ["web_fetch", "task"]}, ((), ("Fetch", "Delegate"), ()), 0),
    ({"allow": ["Bash(cargo :*)"]}, ((), (), ()), 1),
    ({"allow": ["Bash(npm run *)"]}, ((), (), ()), 1),
    ({"allow": ["Bash(a?c)"]}, ((), (), ()), 1),
    ({"allow": ["Read(src**)"]}, ((), (), ()), 1),
    ({"allow": ["Read([ab].txt)"]}, ((), (), ()), 1),
    ({"allow": ["Read(../**)"]}, ((), (), ()), 1),
    ({"allow": ["Grep(fn src/**)"]}, ((), (), ()), 1),
    ({"allow": ["web_fetch(*example*)"]}, ((), (), ()), 1),
    ({"allow": ["mcp__pencil__*"]}, ((), (), ()), 1),
    ({"allow": ["patch"]}, ((), (), ()), 1),
    ({"allow": ["*"]}, ((), (), ()), 1),
    ({"allow": [""]}, ((), (), ()), 1),
    ({"deny": ["Read(secret/**)"]}, (("Read(secret/**)",), (), ()), 0),
    ({"deny": ["Write(/etc/**)"]}, (("Write(/etc/**)",), (), ()), 0),
    ({"deny": ["Bash"]}, (("Bash", "Run"), (), ()), 0),
    ({"deny": ["Bash(git push)"]}, (("Bash(git push)", "Run(git push)"), (), ()), 0),
    ({"deny": ["Bash(rm :*)"]}, (("Bash(rm :*)", "Run(rm :*)"), (), ()), 0),
    ({"deny": ["Bash(rm:*)"]}, (("Bash(rm:*)", "Run(rm:*)"), (), ()), 1),
    ({"deny": ["Bash(*sudo*)"]}, ((), (), ("Bash", "Run")), 1),
    ({"deny": ["Bash(*sudo*)"], "default_decision": "deny"}, ((), (), ()), 1),
    ({"deny": ["Grep(key *)"]}, ((), (), ("Search",)), 1),
    ({"deny": ["patch"]}, ((), (), ()), 1),
    ({"deny": ["mcp__pencil"]}, (("mcp__pencil",), (), ()), 1),
    # a part of what is allowed was denied, and cannot be here
    (
        {"allow": ["Bash(git:*)"], "deny": ["Bash(git push:*)"]},
        (("Bash(git push:*)", "Run(git push:*)"), (), ()),
        2,
    ),
    (
        {"allow": ["Bash(git:*)"], "deny": ["Bash(git push :*)"]},
        (("Bash(git push :*)", "Run(git push :*)"), ("Bash(git:*)",), ()),
        0,
    ),
    (
        {"allow": ["Bash(cargo:*)"], "deny": ["Bash(rm:*)"]},
        (("Bash(rm:*)", "Run(rm:*)"), ("Bash(cargo:*)",), ()),
        1,
    ),
    ({"allow": ["Bash(cargo:*)"], "deny": ["Bash(c:*)"]}, (("Bash(c:*)", "Run(c:*)"), (), ()), 2),
    ({"allow": ["Bash", "Read"], "deny": ["Bash(*sudo*)"]}, ((), ("Read",), ("Bash", "Run")), 2),
    ({"allow": ["mcp__pens__x"], "deny": ["mcp__pen"]}, (("mcp__pen",), (), ()), 2),
    ({"allow": ["Read"], "deny": ["*"]}, ((), (), ()), 1),
    # asking
    ({"ask": ["Write", "Bash(git push:*)"]}, ((), (), ("Write", "Bash(git push:*)")), 0),
    ({"ask": ["Bash(x *)"]}, ((), (), ()), 1),
    ({"ask": ["Write"], "default_decision": "deny"}, ((), (), ("Write",)), 0),
    ({"ask": ["Bash(git:*)"], "default_decision": "deny"}, ((), (), ()), 1),
    # as it is written in files
    ({"allow": [{"rule": "Bash(cargo:*)"}]}, ((), ("Bash(cargo:*)",), ()), 0),
    ({"allow": ["Read", "read", "READ(*)"]}, ((), ("Read",), ()), 0),
    ({"allow": ["Read"], "enabled": False}, ((), (), ()), 2),
    ({"default_decision": "allow"}, ((), (), ()), 1),
]


@pytest.mark.parametrize(("policy", "rules", "noted"), TABLE, ids=[str(row[0]) for row in TABLE])
def test_rules_are_taken_over_where_they_mean_no_more(
    policy: Json, rules: tuple[tuple[str, ...], ...], noted: int
) -> None:
    permissions, notes = here(policy)

    assert (permissions.deny, permissions.allow, permissions.ask) == rules
    assert len(notes) == noted
    denies = policy.get("default_decision") == "deny" or "*" in policy.get("deny", [])
    assert permissions.default is (PermissionDefault.DENY if denies else PermissionDefault.ASK)
    Policy(permissions)  # can be read


def test_nothing_is_allowed_that_nobody_here_has_allowed() -> None:
    permissions, notes = here({"allow": ["Read"], "deny": ["Write"]}, allowing=False)

    assert permissions == Permissions(deny=("Write",))
    assert notes == ["permissions: allow Read: left behind, as nobody here has allowed it"]


# ---- against what was decided there


def there(policy: Json, tool: str, text: str) -> Say:
    """What that program decides, as its source says."""
    for kind, say in (("deny", Say.DENY), ("allow", Say.ALLOW), ("ask", Say.ASK)):
        if any(_matches(rule, tool, text) for rule in policy[kind]):
            return say
    return {"deny": Say.DENY, "allow": Say.ALLOW, "ask": Say.ASK}[policy["default_decision"]]


def _matches(rule: str, tool: str, text: str) -> bool:
    name, bracket, rest = rule.partition("(")
    is_server = name.startswith("mcp__") and tool.startswith("mcp__") and tool.startswith(name)
    if not (is_server or name.lower() == tool.lower()):
        return False
    pattern = rest[:-1] if bracket else "*"
    if pattern == "*":
        return True
    if pattern.endswith(":*"):
        return text.startswith(pattern[:-2])
    glob = re.sub(r"\\\*\\\*/?|\\\*|\\\?", _star, re.escape(pattern))
    return re.fullmatch(glob, text, re.DOTALL) is not None


def _star(found: "re.Match[str]") -> str:
    return ".*" if found[0].startswith("\\*\\*") else "[^/]*" if found[0] == "\\*" else "[^/]"


def as_call(tool: str, text: str) -> Call:
    name = TOOLS.get(tool, tool)
    if tool == "bash":
        return Call(name, Shell(text))
    if tool in ("read", "write", "edit", "ls"):
        return Call(name, file_at(CWD, text))
    return Call(name, Words(text))


COMMANDS = [
    "rm",
    "rm x",
    "rmdir x",
    "git push",
    "git pushx",
    "git",
    "gitx",
    "echo a/b",
    "rm a; git",
]
FILES = ["src/a.rs", "src/b/c.rs", "srcx", "secret/k", "a.rs", "secretly/k"]
PATTERNS = [
    *["", "(*)", "(**)", "(rm:*)", "(rm :*)", "(r:*)", "(git:*)", "(git push:*)", "(git push)"],
    *["(git *)", "(*x)", "(**x)", "(src/**)", "(src**)", "(src/*)", "(**/*.rs)", "(secret/**)"],
    *["(s?cret/k)", "(:*)", "(rm x)"],
]
NAMES = ["Bash", "bash", "Read", "read", "Grep", "mcp__a", "mcp__ab", "mcp__a__x", "*", "patch"]
RULES = st.lists(st.builds("".join, st.tuples(st.sampled_from(NAMES), st.sampled_from(PATTERNS))),
                 max_size=4)  # fmt: skip
CALLS = [
    *(("bash", text) for text in COMMANDS),
    *(("read", text) for text in FILES),
    ("grep", "fn src"),
    ("mcp__a__x", "{}"),
    ("mcp__ab__x", "{}"),
    ("other", "{}"),
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(RULES, RULES, RULES, st.sampled_from(["ask", "deny", "allow"]))
def test_no_policy_is_wider_here_than_there(
    deny: list[str], allow: list[str], ask: list[str], default: str
) -> None:
    written: Json = {"deny": deny, "allow": allow, "ask": ask, "default_decision": default}
    permissions, _ = here(written)
    policy = Policy(permissions)

    for tool, text in CALLS:
        was, is_now = there(written, tool, text), policy.rule(as_call(tool, text)).say
        if was is not Say.ALLOW:
            assert is_now is not Say.ALLOW, (tool, text)
        if was is Say.DENY and default == "deny":
            assert is_now is Say.DENY, (tool, text)
