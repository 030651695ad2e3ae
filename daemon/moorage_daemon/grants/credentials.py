"""Secrets by reference: `${CRED:name}` in a call's arguments.

An agent writes the name and never learns the secret. The reference is what is shown, asked about
and recorded; it is filled in when the call starts, and whatever a call brings back is searched
for the secret and told with the reference in its place.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote


MIN_SECRET = 8  # characters; a shorter one cannot be told from ordinary text
MIN_EDGE = 4  # characters of a secret that was cut at the end of a text

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REFERENCE = re.compile(r"\$\{CRED:([A-Za-z0-9][A-Za-z0-9._-]{0,63})\}")


def is_name(text: str) -> bool:
    """Whether a credential can have that name."""
    return _NAME.fullmatch(text) is not None


def reference(name: str) -> str:
    """How an agent refers to a credential."""
    return f"${{CRED:{name}}}"


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


class Scrubber:
    """Takes secrets out of texts, in the forms in which programs print them."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        plain = {line: name for name, secret in secrets.items() for line in _lines(secret)}
        encoded = {form: name for line, name in plain.items() for form in _encoded(line)}
        self._plain = _longest_first(plain)
        self._forms = _longest_first(encoded | plain)

    def scrub(self, text: str, *, is_cut: bool = False) -> str:
        """The text without them; `is_cut` says that it may begin or end in the middle of one."""
        for form, name in self._forms:
            text = text.replace(form, reference(name))
        if is_cut:
            for form, name in self._plain:
                text = _without_edges(text, form, reference(name))
        return text


def _longest_first(forms: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(forms.items(), key=lambda item: -len(item[0]))


def _lines(secret: str) -> list[str]:
    """The secret whole, and each of its lines that is long enough to be told from other text."""
    lines = [line.strip() for line in secret.splitlines()]
    return [text for text in dict.fromkeys([secret, *lines]) if len(text) >= MIN_SECRET]


def _encoded(text: str) -> Iterable[str]:
    data = text.encode("utf-8", "surrogateescape")
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield quote(data, safe="")
    yield data.hex()
    yield data.hex().upper()
    for shift in range(3):  # where in a longer text it begins decides how it looks in base64
        for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = alphabet(b"\0" * shift + data).decode().rstrip("=")
            inner = encoded[-(-shift * 8 // 6) : len(data + b"\0" * shift) * 8 // 6]
            if len(inner) >= MIN_SECRET:
                yield inner


def _without_edges(text: str, form: str, marker: str) -> str:
    """The text without an end of `form` at its start, and without a beginning at its end."""
    for length in range(min(len(form) - 1, len(text)), MIN_EDGE - 1, -1):
        if text.startswith(form[-length:]):
            text = marker + text[length:]
            break
    for length in range(min(len(form) - 1, len(text)), MIN_EDGE - 1, -1):
        if text.endswith(form[:length]):
            text = text[:-length] + marker
            break
    return text
