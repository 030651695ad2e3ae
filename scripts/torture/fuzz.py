"""Feeds the decoder a million inputs; each gives a message or one of our errors, and the right one.

Inputs are made from messages by mutation, and one that brings about an outcome that was not seen
before is mutated further. The judge is Python's own JSON reader, made strict: what the decoder
takes the judge takes too, and what it calls no JSON the judge refuses. Frames go through the framer
as well, cut at random places. Alone among the tortures this one calls the product's code. A round
is one input.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio

from moorage_protocol import jsonrpc, lenient
from moorage_protocol.acp import ListParams, LoadParams, PermissionResult
from moorage_protocol.errors import InvalidParams, InvalidRequest, ParseError
from moorage_protocol.framing import StreamFramer
from moorage_protocol.jsonrpc import ErrorResponse, Message, Notification, Request
from moorage_protocol.moorage import (
    AttachParams,
    CancelParams,
    ConfigureParams,
    EntriesParams,
    InitializeParams,
    KillParams,
    NewParams,
    PromptParams,
)
from moorage_protocol.peer import Fault, Peer
from scripts.torture.report import Program, Report, run


PROGRAM = Program("fuzz", __doc__, rounds=1_000_000, quick_rounds=20_000)

KEPT = 4000  # inputs that are mutated further
LONG = 4000  # bytes; longer ones are cut
STREAM = 32  # inputs that are joined to one stream for the framer
LIMIT = 300  # bytes of a frame there, so that some are over it
SAY_EVERY = 100_000

SHAPES: list[type[Any]] = [
    AttachParams, CancelParams, ConfigureParams, EntriesParams, InitializeParams, KillParams,
    ListParams, LoadParams, NewParams, PermissionResult, PromptParams,
]  # fmt: skip

SEEDS = [
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1,"x":{"a":[1]}}}',
    b'{"jsonrpc":"2.0","id":4,"method":"initialize","params":{"_meta":{"moorage":{"tuiId":"x"}}}}',
    b'{"jsonrpc":"2.0","id":"a","method":"session/new","params":{"cwd":"/","mcpServers":[]}}',
    b'{"jsonrpc":"2.0","id":2,"params":{"sessionId":"s","prompt":[{"type":"text","text":"t"}]}}',
    b'{"jsonrpc":"2.0","id":2,"method":"m","params":{"text":"\\u00e9 \xf0\x9f\x98\x80"}}',
    b'{"jsonrpc":"2.0","method":"session/cancel","params":{"sessionId":"s"}}',
    b'{"jsonrpc":"2.0","id":3,"result":{"outcome":{"outcome":"selected","optionId":"allow"}}}',
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"m","data":[1.5e3,null]}}',
    b'{"id":9,"method":"m","params":{"sessionId":"s","overrides":{"model":null}},"jsonrpc":"2.0"}',
    b'[{"jsonrpc":"2.0","id":1,"method":"m"}]',
]
PIECES = [
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\\u", b"\\ud800", b"\\udc00", b"\t",
    b"\\ud83d\\ude00", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x00", b"\x7f",
    b"\x0b", b"NaN", b"-Infinity", b"1e400", b"-0", b"01", b"9" * 400, b"9007199254740993", b"true",
    b"null",
    b'"id":', b'"method":', b"[" * 70, b'{"a":' * 70, b"\n", b"\r\n\r\n", b"Content-Length: 5",
    b'"' + b"i" * 260 + b'"', b"\\\\", b'\\"',
]  # fmt: skip


class Mutator:
    """Makes inputs out of what it was given and of those that were worth keeping."""

    def __init__(self, chance: random.Random) -> None:
        self._random = chance
        self.kept = list(SEEDS)

    def next(self) -> bytes:
        """An input."""
        chance = self._random
        frame = bytearray(chance.choice(self.kept))
        for _ in range(chance.choice((0, 1, 1, 1, 1, 2, 3))):
            at = chance.randrange(len(frame) + 1)
            end = min(len(frame), at + chance.choice((0, 0, 1, 2, 8, 40)))
            match chance.randrange(4):
                case 0:
                    frame[at:end] = chance.choice(PIECES)
                case 1:
                    frame[at:end] = chance.randbytes(chance.randrange(4))
                case 2:
                    other = chance.choice(self.kept)
                    start = chance.randrange(len(other) + 1)
                    frame[at:end] = other[start : start + chance.randrange(60)]
                case _:
                    frame[at:at] = frame[at:end] * chance.randrange(3)
        return bytes(frame[:LONG])

    def keep(self, frame: bytes) -> None:
        """Mutate this one further."""
        if len(self.kept) >= KEPT:
            self.kept[self._random.randrange(len(SEEDS), KEPT)] = frame
        else:
            self.kept.append(frame)


# ---- the judge


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def strictly(frame: bytes) -> tuple[bool, object]:
    """Whether a frame is JSON that every peer can read, and what it says."""
    try:
        value: object = json.loads(frame.decode(), parse_constant=_refuse, parse_int=str)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False, None
    return True, value


Decode = Callable[[bytes], Message]


@dataclass(eq=False)
class Trial:
    """One decoder, and what was found about it."""

    decode: Decode
    problems: list[str] = field(default_factory=list[str])
    outcomes: Counter[str] = field(default_factory=Counter[str])

    def put(self, frame: bytes) -> str:
        """Judge one input; gives what came of it, in a word."""
        try:
            outcome = self._judge(frame)
        except Exception as error:  # noqa: BLE001 - any other exception is what is looked for
            outcome = type(error).__name__
            self._note(frame, f"{outcome}: {error}")
        self.outcomes[outcome.partition(":")[0]] += 1
        return outcome

    def _judge(self, frame: bytes) -> str:
        readable, value = strictly(frame)
        try:
            message = self.decode(frame)
        except ParseError:
            if readable:
                self._note(frame, "called no JSON, and it is")
            return "ParseError"
        except InvalidRequest as error:
            return f"InvalidRequest:{error.message}"
        if not readable:
            self._note(frame, "taken, and it is no JSON")
        elif not isinstance(value, dict):
            self._note(frame, "taken, and it is no object")
        return self._params(message)

    def _params(self, message: Message) -> str:
        """Read params in every shape: that gives it, or says what is wrong."""
        kind = type(message).__name__
        if isinstance(message, Request | Notification):
            for shape in SHAPES:
                try:
                    msgspec.json.encode(lenient.decode(message.params, shape))
                    kind += f":{shape.__name__}"
                except InvalidParams:
                    pass
        return kind

    def reply(self, frame: bytes) -> None:
        """What is said to a frame that is none is a message itself, under no foreign id."""
        heard = Peer[str]().receive(frame)
        if isinstance(heard, Fault):
            answer = jsonrpc.decode(heard.reply)
            if not isinstance(answer, ErrorResponse) or answer.error.code not in (-32700, -32600):
                self._note(frame, f"answered {heard.reply!r}")
            elif answer.id is not None and json.loads(frame)["id"] != answer.id:
                self._note(frame, "answered under another id")

    def _note(self, frame: bytes, problem: str) -> None:
        self.problems.append(f"{problem}: {frame[:200]!r}")


def cut(stream: bytes, chance: random.Random) -> Iterator[bytes]:
    """A stream in pieces."""
    at = 0
    while at < len(stream):
        end = at + chance.choice((1, 3, 17, 250, 4096))
        yield stream[at:end]
        at = end


def framed_alike(frames: list[bytes], chance: random.Random) -> bool:
    """Whether the framer says the same of a stream in one piece and in many."""
    join = chance.choice((b"\n".join, b"".join, _with_lengths))
    stream = chance.choice((b"", b"C", b"Content-Length: 3\r\n\r\n")) + join(frames)
    whole, pieces = StreamFramer(LIMIT), StreamFramer(LIMIT)
    told = whole.receive(stream)
    return told == [frame for piece in cut(stream, chance) for frame in pieces.receive(piece)]


def _with_lengths(frames: list[bytes]) -> bytes:
    return b"".join(b"Content-Length: %d\r\n\r\n%b" % (len(frame), frame) for frame in frames)


# ---- control arms


def by_plain_json(frame: bytes) -> Message:
    """A decoder as one writes it first: lets exceptions and NaN through."""
    value = json.loads(frame)
    if not isinstance(value, dict):
        raise InvalidRequest
    return Notification("m")


def without_a_look_at_the_text(frame: bytes) -> Message:
    """A decoder that forgives what is no UTF-8."""
    return jsonrpc.decode(frame.decode(errors="replace").encode())


def that_trips(frame: bytes) -> Message:
    """The decoder with a bug that one input in many thousand shows."""
    if b"\\ud83d" in frame and b'"id":' in frame and b"null" in frame:
        raise KeyError("as planted")
    return jsonrpc.decode(frame)


def fuzz(trial: Trial, rounds: int, chance: random.Random, say: Callable[[str], None]) -> Mutator:
    """Put that many inputs to a decoder."""
    mutator, seen, frames = Mutator(chance), set[str](), list[bytes]()
    for number in range(1, rounds + 1):
        frame = mutator.next()
        outcome = trial.put(frame)
        if outcome not in seen:
            seen.add(outcome)
            mutator.keep(frame)
        elif chance.random() < 0.01:
            mutator.keep(frame)
        frames.append(frame)
        if len(frames) == STREAM:
            if not framed_alike(frames, chance):
                trial.problems.append(f"framed differently when cut: {frames!r}"[:500])
            frames.clear()
        if number % SAY_EVERY == 0:
            say(f"{number} inputs, {len(seen)} outcomes, {len(trial.problems)} problems")
    return mutator


async def torture(report: Report) -> None:
    """The decoder, then decoders with bugs."""
    trial = Trial(jsonrpc.decode)
    chance = random.Random(report.seed)
    mutator = await trio.to_thread.run_sync(fuzz, trial, report.rounds, chance, report.say)
    for frame in mutator.kept:
        trial.reply(frame)
    for problem in trial.problems:
        report.violation(problem)
    report.figures["inputs"] = report.rounds
    report.figures["outcomes"] = dict(trial.outcomes)
    few = min(report.rounds, 50_000)
    for planted in (by_plain_json, without_a_look_at_the_text, that_trips):
        control = Trial(planted)
        fuzz(control, few, random.Random(report.seed), lambda _: None)
        report.control(planted.__name__, control.problems)


if __name__ == "__main__":
    run(PROGRAM, torture)
