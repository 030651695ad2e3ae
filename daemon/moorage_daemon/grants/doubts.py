"""Shell text that is read in more than one way, or not in the order in which it stands.

Where a text goes on behind these depends on the shell, or on more grammar than it takes to find
commands: what a reader of commands believes to be quoted may then be run. Known here is the plain
form of each; behind any other nobody is sure. Tried with dash and bash.
"""

import re


_ARITHMETIC = re.compile(r"\$\(\((?:\$?\w|[\s+*/%=!?:,~^-])*\)\)")  # no quotes, no comments
_PARAMETER = re.compile(r"\$\{[^\s'\"`\\(){}<>;&|]*\}")
_PROMPT = re.compile(r"@[A-Za-z]\}\Z")  # `${x@P}` runs what is substituted in x
_ANSI = re.compile(r"\$'[^'\\]*'")  # dash knows no escape there
_BACKTICKS = re.compile(r"`(?:[^`'\"\\#]|'[^`'\\]*'|\"[^`\"\\]*\")*`")
_HERE = re.compile(r"<<(-?)[ \t]*(['\"]?)([\w.]+)\2(?=[\s;&|<>]|\Z)[^'\"\\#`()$<\n]*(?:\n|\Z)")
_IN_HERE = re.compile(r"['\"\\#`<]")
_COPIED = re.compile(r"[ \t]*[\w./-]+(?=[\s;&|<>()]|\Z)")  # bash expands others twice
_NO_COMMAND = re.compile(r"\(\s*\)")  # `<() x` starts x
_SUBSCRIPT = re.compile(r"\[.*(?:\$\(|`)", re.DOTALL)  # bash runs it in `test -v 'a[$(x)]'`


def is_plain_dollar(text: str, at: int, *, is_quoted: bool) -> bool:
    """Whether it is clear how far goes what begins with that `$`."""
    match text[at + 1 : at + 2]:
        case "(":
            return not text.startswith("$((", at) or _ARITHMETIC.match(text, at) is not None
        case "{":
            found = _PARAMETER.match(text, at)
            return found is not None and _PROMPT.search(found[0]) is None
        case "'":
            return is_quoted or _ANSI.match(text, at) is not None
        case "[":
            return False  # arithmetic in bash, a dollar in dash
        case "\\":
            return not text.startswith("\\\n", at + 1)  # `(` may follow
        case _:
            return True


def is_plain_backtick(text: str, at: int) -> bool:
    """Whether the same mark ends it for everybody, and nothing in it has to be unescaped first."""
    return _BACKTICKS.match(text, at) is not None


def is_plain_redirect(text: str, at: int, end: int, *, is_nested: bool) -> bool:
    """Whether nothing behind the operator from `at` to `end` is text that is no command."""
    operator = text[at:end]
    if text.startswith("\\\n", end) or _NO_COMMAND.match(text, end):
        return False
    if operator.endswith("&") and _COPIED.match(text, end) is None:
        return False
    if "<<" not in operator or operator.startswith("<<<"):
        return True
    found = _HERE.match(text, at)
    if found is None:
        return False
    end = _end_of_body(text, found.end(), found[3], with_tabs=bool(found[1]))
    return _IN_HERE.search(text, found.end(), end) is None and not (
        is_nested and text.find(")", found.end(), end) >= 0
    )


def _end_of_body(text: str, at: int, mark: str, *, with_tabs: bool) -> int:
    """Where the lines of a here-document end: at its mark, or with the text."""
    while at < len(text):
        newline = text.find("\n", at)
        line = text[at:] if newline < 0 else text[at:newline]
        if (line.lstrip("\t") if with_tabs else line) == mark:
            break
        at = len(text) if newline < 0 else newline + 1
    return at


def is_run_later(word: str, *, is_assigned: bool) -> bool:
    """Whether a word has a substitution in it that a shell may still make of it."""
    return _SUBSCRIPT.search(word) is not None or (is_assigned and ("$(" in word or "`" in word))
