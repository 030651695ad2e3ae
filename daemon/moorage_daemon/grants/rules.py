"""One rule about tool calls, for grants and permissions alike.

    Read                     every call of the tool
    Read(src/**)             a path below the workspace, after normalisation
    Bash(cargo:*)            a command that begins with these words
    Run(git status)          exactly this command
    Fetch(domain:*.org)      an address on that host, or below it
    mcp__server, mcp__server__*   every tool of one MCP server

A rule is asked in two directions. What it *permits* must certainly be meant by it; what it
*touches* may be meant by it, and where nobody can tell the answer is unsure. A prefix ends at a
word, and permits no command that has more to it than words.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from urllib.parse import urlsplit

from moorage_daemon.grants.calls import (
    MAX_NAME,
    Argv,
    Call,
    File,
    Shell,
    Subject,
    Words,
    composed,
    file_at,
)
from moorage_daemon.grants.globs import matches_path
from moorage_daemon.grants.openers import starts_others
from moorage_daemon.grants.shell import plain_words
from moorage_daemon.grants.touching import Touch, touch_of


MAX_RULE = 1000  # characters
SOMEWHERE = "/workspace"  # of calls that an outside program names: only names are compared
SHELL_TOOL = "Bash"  # whatever hands a command to a shell
COMMAND_TOOLS = frozenset({SHELL_TOOL, "Run"})
FILE_TOOLS = frozenset({"Read", "Write", "Edit", "List", "Glob", "Search"})
CHANGING_TOOLS = frozenset({"Write", "Edit"})

_RULE = re.compile(r"(?P<tool>[^\s()*]+?)(?P<all>__\*)?(?:\((?P<pattern>.+)\))?", re.DOTALL)
_DOMAIN = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


class BadRule(ValueError):
    """A rule that cannot be read; one line says what is allowed."""


class Shape(IntEnum):
    """What the pattern of a rule is."""

    ANYTHING = 0
    PREFIX = 1
    EXACT = 2
    PATH = 3
    DOMAIN = 4


@dataclass(frozen=True)
class Rule:
    """One rule, read; `pattern` is what stands in its brackets, without its mark."""

    text: str
    tool: str
    shape: Shape
    pattern: str = ""

    @property
    def weight(self) -> int:
        """How much it says: of two rules about one call the heavier one is more to the point."""
        return len(self.pattern.replace("*", ""))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of a command's beginning, or of all of it; empty if it is none of words."""
        return plain_words(self.pattern) or ()

    def permits(self, call: Call) -> bool:
        """Whether the call is certainly one that the rule means."""
        if not self._is_of(call.tool):
            return False
        if self.shape is Shape.ANYTHING:
            return True
        subject = call.subject
        match subject:
            case Shell():
                is_verbatim = self.shape is Shape.EXACT and subject.command == self.pattern
                return is_verbatim or self._permits_words(subject.words)
            case Argv():
                return self._permits_words(subject.words)
            case File():
                return self._permits_file(subject)
            case Words(text):
                return self._is_about(text)
            case None:
                return False

    def touches(self, call: Call) -> Touch:
        """Whether the call is one that the rule means, or could be."""
        if not self._is_of(call.tool):
            return Touch.NO
        if self.shape is Shape.ANYTHING:
            return Touch.YES
        is_prefix = self.shape is Shape.PREFIX
        subject = call.subject
        match subject:
            case Shell():
                if subject.command.strip() == self.pattern:
                    return Touch.YES
                return touch_of(self.words, subject.reading, is_prefix=is_prefix)
            case Argv():
                return touch_of(self.words, subject.reading, is_prefix=is_prefix)
            case File():
                return Touch.YES if self._names(subject.names) else Touch.NO
            case Words(text):
                return Touch.YES if self._is_about(text) else Touch.NO
            case None:
                return Touch.UNSURE

    def includes(self, other: "Rule") -> bool:
        """Whether all that `other` permits is permitted by this one too, as far as is plain."""
        if not self._is_of(other.tool):
            return False
        if self.shape is Shape.ANYTHING or self == other:
            return True
        if self.shape is Shape.PREFIX and other.shape in (Shape.PREFIX, Shape.EXACT):
            return bool(other.words) and other.words[: len(self.words)] == self.words
        return False

    def _is_of(self, tool: str) -> bool:
        if tool == self.tool:
            return True
        is_server = self.tool.startswith("mcp__") and "__" not in self.tool[5:]
        return is_server and tool.startswith(self.tool + "__")

    def _permits_words(self, words: tuple[str, ...] | None) -> bool:
        if not words or not self.words:
            return False
        if self.shape is Shape.EXACT:
            return words == self.words
        vouched = len(self.words)
        return words[:vouched] == self.words and not starts_others(words, vouched)

    def _permits_file(self, file: File) -> bool:
        """All its names must be meant; what git starts later (.git) must be named as well."""
        if not file.inside or not all(self._names((name,)) for name in file.inside):
            return False
        is_hook = any(".git" in name.lower().split("/") for name in file.inside)
        return not (is_hook and self.tool in CHANGING_TOOLS and ".git" not in self.pattern)

    def _names(self, names: tuple[str, ...]) -> bool:
        pattern = composed(self.pattern)
        return any(matches_path(pattern, composed(name)) for name in names)

    def _is_about(self, text: str) -> bool:
        match self.shape:
            case Shape.DOMAIN:
                return _is_on(self.pattern, text)
            case Shape.PREFIX:
                return text == self.pattern or text.startswith(self.pattern + " ")
            case _:
                return text == self.pattern


def _is_on(domain: str, address: str) -> bool:
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return False
    if "\\" in address or any(letter <= " " for letter in address):
        return False  # programs read these in different ways
    return host.endswith(domain[1:]) if domain.startswith("*.") else host == domain


def read_rule(text: str) -> Rule:
    """A rule as it is written; raises `BadRule`."""
    found = _RULE.fullmatch(text) if len(text) <= MAX_RULE else None
    if found is None or len(found["tool"]) > MAX_NAME or not text.isprintable():
        raise BadRule("a rule is Tool or Tool(pattern), like Read(src/**) or Bash(cargo:*)")
    tool, pattern = found["tool"], found["pattern"]
    if found["all"]:
        if pattern is not None or not re.fullmatch(r"mcp__[^_].*", tool) or "__" in tool[5:]:
            raise BadRule("a star stands only behind an MCP server: mcp__server__*")
        return Rule(text, tool, Shape.ANYTHING)
    if pattern is None:
        return Rule(text, tool, Shape.ANYTHING)
    if tool in FILE_TOOLS:
        return Rule(text, tool, Shape.PATH, _path_pattern(pattern))
    if tool == "Fetch" and pattern.startswith("domain:"):
        domain = pattern.removeprefix("domain:").lower()
        if not _DOMAIN.fullmatch(domain):
            raise BadRule("behind domain: stands a host, like example.org or *.example.org")
        return Rule(text, tool, Shape.DOMAIN, domain)
    return _worded(text, tool, pattern)


def _worded(text: str, tool: str, pattern: str) -> Rule:
    if not pattern.endswith(":*"):
        if "*" in pattern and tool in COMMAND_TOOLS:
            raise BadRule(f"{tool} knows no star but :* behind whole words, like {tool}(cargo:*)")
        return Rule(text, tool, Shape.EXACT, pattern)
    rule = Rule(text, tool, Shape.PREFIX, pattern.removesuffix(":*").strip())
    if not rule.pattern or (tool in COMMAND_TOOLS and not rule.words):
        raise BadRule(f"before :* stand whole words, and only words: {tool}(git:*)")
    return rule


def _path_pattern(pattern: str) -> str:
    """A pattern as normalised paths are compared with it."""
    kept = pattern.removeprefix("./")
    if not kept or "//" in kept or ".." in kept.split("/"):
        raise BadRule("a path pattern is below the workspace, like src/** or **/*.md")
    return kept.rstrip("/") or "/"


class RulesByTool:
    """Rules, looked up by the tool they name; only those of MCP servers are about several."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._by_tool: dict[str, tuple[Rule, ...]] = {}
        servers: list[Rule] = []
        for rule in rules:
            self._by_tool[rule.tool] = (*self._by_tool.get(rule.tool, ()), rule)
            servers += [rule] if rule.tool.startswith("mcp__") else []
        self._servers = tuple(servers)

    def about(self, tool: str) -> tuple[Rule, ...]:
        """Those that can be about calls of a tool, in the order in which they were given."""
        return self._servers if tool.startswith("mcp__") else self._by_tool.get(tool, ())


class Allowlist:
    """What a grant permits: the calls that one of its rules permits, or any (None)."""

    def __init__(self, tools: tuple[str, ...] | None) -> None:
        self._rules = None if tools is None else tuple(map(read_rule, tools))
        self._by_tool = RulesByTool(self._rules or ())

    def permits(self, call: Call) -> bool:
        """Whether the call is on the list."""
        if self._rules is None:
            return True
        for rule in self._by_tool.about(call.tool):
            if rule.shape is Shape.ANYTHING and rule.tool == call.tool:
                return True
            if rule.permits(call):
                return True
        return False

    def includes(self, other: "Allowlist") -> bool:
        """Whether nothing on the other list is missing on this one, as far as is plain."""
        if self._rules is None:
            return True
        if other._rules is None:
            return False
        return all(any(mine.includes(rule) for mine in self._rules) for rule in other._rules)


def read_call(text: str) -> Call:
    """A call as an outside program names it, `Tool` or `Tool(what it is about)`.

    Raises `BadRule`. A path in it is taken as one of the workspace.
    """
    tool, bracket, about = text.partition("(")
    if not bracket or not text.endswith(")"):
        if not text or len(text) > MAX_RULE or not text.isprintable():
            raise BadRule("a tool's name has 1 to 200 characters that can be printed")
        return Call(text)
    return Call(tool, _subject(tool, about[:-1]))


def _subject(tool: str, about: str) -> Subject:
    if tool in FILE_TOOLS:
        return file_at(SOMEWHERE, about)
    if tool == "Run":
        return Argv(plain_words(about) or ())
    return Shell(about) if tool == SHELL_TOOL else Words(about)
