"""Permission questions, put to a person or answered by a flag.

A person decides by what they read, so everything in a question is shown as it is: what does not
print stands as its escape, and nothing is cut off without saying so. Where there is neither a
person nor a flag the question stays open: it may be answered from elsewhere, and it is no "no".
"""

import json
from enum import StrEnum
from typing import Protocol, cast

import msgspec
import trio

from moorage_clients.cli.colour import Style
from moorage_clients.cli.invocation import Consent
from moorage_clients.cli.transcript import View
from moorage_clients.plain_text import visible
from moorage_protocol.acp import (
    Diff,
    PermissionKind,
    PermissionOption,
    PermissionParams,
    ToolCallFields,
)


MAX_SHOWN = 4000  # characters of one field of a question


class Word(StrEnum):
    """What may be said to a question."""

    YES = "y"
    NO = "n"
    ALWAYS = "always"


_KINDS = {
    Word.YES: (PermissionKind.ALLOW_ONCE,),
    Word.NO: (PermissionKind.REJECT_ONCE, PermissionKind.REJECT_ALWAYS),
    Word.ALWAYS: (PermissionKind.ALLOW_ALWAYS,),
}
_SPELLINGS = {
    **dict.fromkeys(("y", "yes"), Word.YES),
    **dict.fromkeys(("n", "no"), Word.NO),
    **dict.fromkeys(("a", "always"), Word.ALWAYS),
}


def word(line: str) -> Word | None:
    """What a typed line says to a question; None if it says nothing to one."""
    return _SPELLINGS.get(line.strip().lower())


def option_for(said: Word, options: list[PermissionOption]) -> PermissionOption | None:
    """The offered option that a word stands for."""
    found = (option for kind in _KINDS[said] for option in options if option.kind is kind)
    return next(found, None)


class Ear(Protocol):
    """Hears a person."""

    def forget(self) -> None:
        """Drop what was said before now: it is no answer to what is asked next."""
        ...

    async def line(self) -> str | None:
        """The next thing that they say; None: nobody will say anything any more."""
        ...


class Questions:
    """Answers the daemon's questions, one after the other.

    `ear` hears a person; None if there is none. `how_else` says how a question that stays open can
    be answered.
    """

    def __init__(self, consent: Consent, view: View, ear: Ear | None, how_else: str) -> None:
        self.is_asking = False
        self.is_leaving = False  # then a question that goes away was not settled
        self._consent = consent
        self._view = view
        self._ear = ear
        self._how_else = how_else
        self._one_at_a_time = trio.Lock()

    async def __call__(self, question: PermissionParams) -> str | None:
        """Decide a question: gives the id of one of its options."""
        if self._consent.allow or self._consent.deny:
            said = Word.YES if self._consent.allow else Word.NO
            option = option_for(said, question.options)
            if option is not None:
                flag = "--allow" if self._consent.allow else "--deny"
                self._view.note(f"[{_title(question.tool_call)}] {flag}")
                return option.option_id
        async with self._one_at_a_time:
            return await self._ask(question)

    async def _ask(self, question: PermissionParams) -> str:
        if self._ear is not None:
            self._ear.forget()
        asked, *details = question_lines(question.tool_call)
        self._view.note(asked, Style.ASKING)
        for line in details:
            self._view.note(line, Style.PLAIN)
        try:
            self.is_asking = True
            if self._ear is not None:
                option = await self._hear(question.options, self._ear)
                if option is not None:
                    return option.option_id
            self._view.note(f"It waits for an answer. {self._how_else}")
            await trio.sleep_forever()
        except trio.Cancelled:
            if not self.is_leaving:
                self._view.note("(the question is settled)")
            raise
        finally:
            self.is_asking = False

    async def _hear(self, options: list[PermissionOption], ear: Ear) -> PermissionOption | None:
        offered = [said for said in Word if option_for(said, options) is not None]
        while True:
            self._view.note(f"Allow it? {' / '.join(offered)}", Style.ASKING)
            line = await ear.line()
            if line is None:
                return None
            said = word(line)
            option = None if said is None else option_for(said, options)
            if option is not None:
                return option


def question_lines(call: ToolCallFields) -> list[str]:
    """A question as a person has to see it before they decide."""
    lines = [f"Permission is asked: {_title(call)}"]
    if isinstance(call.raw_input, msgspec.Raw):
        lines += _input_lines(json.loads(bytes(call.raw_input)))
    for content in call.content or []:
        if isinstance(content, Diff):
            lines.append(f"  changes: {_shown(content.path)}")
    lines += [f"  at: {_shown(location.path)}" for location in call.locations or []]
    return lines


def _title(call: ToolCallFields) -> str:
    return _shown(call.title or call.name or call.tool_call_id)


def _input_lines(value: object) -> list[str]:
    if not isinstance(value, dict):
        return [f"  input: {_shown(_as_text(value))}"]
    fields = cast("dict[str, object]", value)
    return [f"  {_shown(key)}: {_shown(_as_text(field))}" for key, field in fields.items()]


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shown(text: str) -> str:
    rest = len(text) - MAX_SHOWN
    return visible(text[:MAX_SHOWN]) + (f"… (and {rest} characters more)" if rest > 0 else "")
