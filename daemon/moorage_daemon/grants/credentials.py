"""Secrets by reference: `${CRED:name}` in a call's arguments.

An agent writes the name and never learns the secret. The reference is what is shown, asked about
and recorded; it is filled in when the call starts, and whatever a call brings back is searched
for the secret and told with the reference in its place.
"""

import re
from collections.abc import Mapping

from moorage_daemon.scrubbing import Scrubber


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REFERENCE = re.compile(r"\$\{CRED:([A-Za-z0-9][A-Za-z0-9._-]{0,63})\}")


def is_name(text: str) -> bool:
    """Whether a credential can have that name."""
    return _NAME.fullmatch(text) is not None


def reference(name: str) -> str:
    """How an agent refers to a credential."""
    return f"${{CRED:{name}}}"


def scrubber_of(secrets: Mapping[str, str]) -> Scrubber:
    """What tells their references where secrets stand; `secrets` are by name."""
    return Scrubber({secret: reference(name) for name, secret in secrets.items()})


def references(text: str) -> tuple[str, ...]:
    """The names that a text refers to, each once."""
    return tuple(dict.fromkeys(_REFERENCE.findall(text)))


def filled(text: str, secrets: Mapping[str, str]) -> str:
    """The text with its references filled in; one that is not among `secrets` stays."""
    return _REFERENCE.sub(lambda found: secrets.get(found[1], found[0]), text)


def filled_for_shell(command: str, secrets: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """A shell command with variables in place of its references, and those variables.

    The secret stands in no argument of the shell, and nothing in it is read as shell text: it is
    quoted here, whatever quotes the reference stands in.
    """
    pieces: list[str] = []
    variables: dict[str, str] = {}
    at, quote_mark = 0, ""
    for found in _REFERENCE.finditer(command):
        quote_mark = _quote_after(command[at : found.start()], quote_mark)
        pieces.append(command[at : found.start()])
        at = found.end()
        if found[1] not in secrets:
            pieces.append(found[0])
            continue
        variable = f"MOORAGE_CRED_{found[1].encode().hex().upper()}"
        variables[variable] = secrets[found[1]]
        pieces.append(_expansion(variable, quote_mark))
    return "".join([*pieces, command[at:]]), variables


def _expansion(variable: str, quote_mark: str) -> str:
    match quote_mark:
        case '"':
            return f"${{{variable}}}"
        case "'":
            return f"'\"${{{variable}}}\"'"
        case _:
            return f'"${{{variable}}}"'


def _quote_after(text: str, quote_mark: str) -> str:
    """The quotation mark that is open after a piece of shell text."""
    escaped = False
    for letter in text:
        if escaped:
            escaped = False
        elif letter == "\\" and quote_mark != "'":
            escaped = True
        elif quote_mark:
            quote_mark = "" if letter == quote_mark else quote_mark
        elif letter in "'\"":
            quote_mark = letter
    return quote_mark
