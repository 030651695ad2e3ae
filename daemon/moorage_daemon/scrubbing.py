"""Takes secrets out of texts: the one rule for credentials and for what a prompt marks as secret.

A secret is looked for whole and line by line, and each of those in the forms in which programs
print it:

    as it is, with either kind of line end
    in JSON, with all but ASCII escaped or not, with or without `\\/`, and in JSON inside JSON
    as Python shows it, in single quotes of a shell, in HTML
    percent-encoded: whatever is left as it is, digits small or capital, a space as `%20` or `+`
    in hexadecimal, small or capital
    in base64 of either alphabet, wherever in a longer text it begins; alone also in lines of 64
    or 76 characters

What is not: a part of a line, other letters for the same (capitals for small ones), other
encodings, and a secret that is compressed or encrypted.
"""

import base64
import html
import json
import re
import string
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar

import msgspec


MIN_SECRET = 8  # characters; a shorter one cannot be told from ordinary text
MIN_EDGE = 4  # characters of a secret that was cut at the end of a text

_HEAD = 4  # characters by which the beginning of a form is found
_MANY = 400  # forms that take as long to look for one by one as all at once, letter by letter
_LITERAL = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9][0-9.eE+-]*')


class _Found(msgspec.Struct, frozen=True):
    """A part of a text that is a secret, and what stands in its place."""

    start: int
    end: int
    mark: str


class Scrubber:
    """Takes secrets out of texts; `marks` says for each what is to stand in its place."""

    def __init__(self, marks: Mapping[str, str]) -> None:
        plain = {line: mark for secret, mark in marks.items() for line in _lines(secret)}
        encoded = {form: mark for line, mark in plain.items() for form in _encoded(line)}
        self._plain = _longest_first(plain)
        self._forms = _longest_first(encoded | plain)
        self._sorted = sorted(form for form, _ in self._forms)
        self._heads: dict[str, list[tuple[str, str]]] = {}
        for form, mark in self._forms:
            self._heads.setdefault(form[:_HEAD], []).append((form, mark))
        self._longest = len(self._forms[0][0]) if self._forms else 0

    def scrub(self, text: str, *, is_cut: bool = False) -> str:
        """The text without them; `is_cut` says that it may begin or end in the middle of one."""
        text = _replaced(text, self.found(text))
        if is_cut:
            for form, mark in self._plain:
                text = _without_edges(text, form, mark)
        return text

    def scrub_json(self, data: bytes) -> bytes:
        """JSON text without them, names and numbers included; else it stays byte for byte."""
        return _LITERAL.sub(self._literal, data.decode()).encode()

    def _literal(self, literal: re.Match[str]) -> str:
        written = literal[0]
        text: str = json.loads(written) if written.startswith('"') else written
        scrubbed = self.scrub(text)
        return written if scrubbed == text else json.dumps(scrubbed, ensure_ascii=False)

    def is_in(self, text: str) -> bool:
        """Whether one of them stands in it."""
        return bool(self.found(text))

    def found(self, text: str) -> list[_Found]:
        """Where they stand, in order; what overlaps is one."""
        is_quick = len(self._forms) < min(len(text), _MANY)
        return _merged(self._each_in(text) if is_quick else self._all_in(text))

    def _each_in(self, text: str) -> Iterator[_Found]:
        """One form after the other: a few of them in much text."""
        for form, mark in self._forms:
            at = text.find(form)
            while at >= 0:
                yield _Found(at, at + len(form), mark)
                at = text.find(form, at + len(form))

    def _all_in(self, text: str) -> Iterator[_Found]:
        """One letter after the other: many forms, or a short piece of text."""
        for at in range(len(text) - MIN_SECRET + 1):
            for form, mark in self._heads.get(text[at : at + _HEAD], ()):
                if text.startswith(form, at):
                    yield _Found(at, at + len(form), mark)
                    break

    def begins_in(self, text: str) -> int:
        """Where one may begin whose end is still to come; the text's length if nowhere."""
        length = len(text)
        for at in range(max(0, length - self._longest + 1), length):
            if length - at >= _HEAD and text[at : at + _HEAD] not in self._heads:
                continue
            if self.begun(text[at:]) is not None:
                return at
        return length

    def begun(self, beginning: str) -> str | None:
        """A form that goes on after that beginning."""
        at = bisect_left(self._sorted, beginning)
        for form in self._sorted[at : at + 2]:  # the first may be no longer than this
            if len(form) > len(beginning) and form.startswith(beginning):
                return form
        return None

    def mark_of(self, form: str) -> str:
        """What stands in the place of a form."""
        return next(mark for other, mark in self._forms if other == form)


class Stream:
    """A text that comes in pieces, without secrets, however it is cut.

    What may be the beginning of one is held back until it is known; no more than that.
    """

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._held = ""
        self._done = 0  # characters of what is held that are told, or stand behind a mark

    def feed(self, piece: str) -> str:
        """What can be told when that piece has come."""
        text = self._held + piece
        end = self._scrubber.begins_in(text)
        if end == 0:
            self._held = text
            return ""
        told, self._done = self._told(text, self._done, end)
        self._held = text[end:]
        return told

    def pause(self) -> str:
        """What is told before something else is said; the text may go on behind that.

        Of a beginning that is at least half of a secret only a mark is told.
        """
        text, done = self._held, self._done
        if done == len(text):
            return ""
        form = self._scrubber.begun(text)
        self._done = len(text)
        if form is not None and 2 * len(text) >= len(form):
            return "" if done else self._scrubber.mark_of(form)
        return self._told(text, done, len(text))[0]

    def _told(self, text: str, done: int, end: int) -> tuple[str, int]:
        """What is told of `text` from `done` to `end`, and how much behind that is told with it."""
        found = self._scrubber.found(text)
        if done:
            found = _merged([_Found(0, done, ""), *found])
        told: list[str] = []
        at = 0
        for part in found:
            if part.start >= end:
                break
            told += [text[at : part.start], part.mark]
            at = part.end
        told.append(text[at:end])
        return "".join(told), max(0, at - end)


def _merged(found: Iterable[_Found]) -> list[_Found]:
    """Parts that overlap as one, with the mark of the first and longest of them."""
    merged: list[_Found] = []
    for part in sorted(found, key=lambda part: (part.start, -part.end)):
        if merged and part.start < merged[-1].end:
            last = merged[-1]
            mark = last.mark or (part.mark if part.end > last.end else "")
            merged[-1] = _Found(last.start, max(last.end, part.end), mark)
        else:
            merged.append(part)
    return merged


def _replaced(text: str, found: Iterable[_Found]) -> str:
    pieces: list[str] = []
    at = 0
    for part in found:
        pieces += [text[at : part.start], part.mark]
        at = part.end
    return "".join([*pieces, text[at:]])


def _longest_first(forms: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(forms.items(), key=lambda item: -len(item[0]))


def _without_edges(text: str, form: str, mark: str) -> str:
    """The text without an end of `form` at its start, and without a beginning at its end."""
    for length in range(min(len(form) - 1, len(text)), MIN_EDGE - 1, -1):
        if text.startswith(form[-length:]):
            text = mark + text[length:]
            break
    for length in range(min(len(form) - 1, len(text)), MIN_EDGE - 1, -1):
        if text.endswith(form[:length]):
            text = text[:-length] + mark
            break
    return text


# ---- the forms


def _lines(secret: str) -> list[str]:
    """The secret whole, and each of its lines that is long enough to be told from other text."""
    whole = secret.strip()
    ends = ["\n".join(whole.splitlines()), "\r\n".join(whole.splitlines())]
    lines = [line.strip() for line in whole.splitlines()]
    found = dict.fromkeys([secret, whole, *ends, *lines])
    return [text for text in found if len(text) >= MIN_SECRET]


def _encoded(text: str) -> Iterator[str]:
    data = text.encode("utf-8", "surrogateescape")
    in_json = {*_in_json(text)}
    yield from in_json
    if in_json != {text}:
        yield from (again for written in in_json for again in _in_json(written))
    yield repr(text)[1:-1]
    yield text.replace("'", "'\\''")
    yield text.replace("'", "'\"'\"'")
    yield html.escape(text)
    yield html.escape(text, quote=False)
    yield from _percent_encoded(data)
    yield data.hex()
    yield data.hex().upper()
    yield from _in_base64(data)


def _in_json(text: str) -> Iterator[str]:
    for only_ascii in (True, False):
        written = json.dumps(text, ensure_ascii=only_ascii)[1:-1]
        yield written
        yield written.replace("/", "\\/")


def _percent_encoded(data: bytes) -> Iterator[str]:
    letters = data.decode("latin-1")
    for table in _PERCENT:
        written = letters.translate(table)
        yield written
        yield written.replace("%20", "+")


def _percent_tables() -> Iterator[dict[int, str]]:
    usual = "-._~" + string.ascii_letters + string.digits
    for others in ("", "/", "!'()*", "!'()*/", ";,/?:@&=+$!~*'()#"):  # that are left as they are
        for digits in ("%%%02X", "%%%02x"):
            yield {code: digits % code for code in range(256) if chr(code) not in usual + others}


_PERCENT = tuple(_percent_tables())


def _in_base64(data: bytes) -> Iterator[str]:
    for shift in range(3):  # where in a longer text it begins decides how it looks in base64
        for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = alphabet(b"\0" * shift + data).decode().rstrip("=")
            inner = encoded[-(-shift * 8 // 6) : len(data + b"\0" * shift) * 8 // 6]
            if len(inner) < MIN_SECRET:
                continue
            yield inner
            if shift == 0:
                yield from _in_lines(inner)


def _in_lines(text: str) -> Iterator[str]:
    for length in (64, 76):
        lines = [text[at : at + length] for at in range(0, len(text), length)]
        yield "\n".join(lines)
        yield from (line for line in lines if len(line) >= MIN_SECRET)


# ---- what is logged


_hidden: ContextVar[Callable[[str], str] | None] = ContextVar("hidden", default=None)


def hide_in_logs(scrub: Callable[[str], str]) -> None:
    """Have `scrub` see all that this task, and those that it starts, have logged from here on."""
    _hidden.set(scrub)


def fit_to_log(text: str) -> str:
    """The text as the task that logs it may have it logged."""
    scrub = _hidden.get()
    return text if scrub is None else scrub(text)
