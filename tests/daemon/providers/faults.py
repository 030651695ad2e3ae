"""What providers do wrong, and what has to come of it.

Each fault is played by the fake provider. `said` is what its user sees before the turn ends, and
`code` the verdict's word, None where nothing is wrong with an answer that merely looks odd.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import trio

from tests.daemon.providers.fake import Play, Visit, answer, chunk, event, refusing, streaming


SHORT = 0.15  # seconds of a deadline that is meant to pass
PAUSE = 0.5  # seconds of one that is not to pass before something was said, on a busy machine
FIRST, SILENCE = "first_token_seconds", "silence_seconds"


@dataclass(frozen=True)
class Fault:
    """One fault. `settings` shorten the deadline that it runs into; `play` None: nobody listens."""

    name: str
    code: str | None
    play: Play | None
    said: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


async def hang(visit: Visit) -> None:
    await visit.until_closed()


async def hang_after_headers(visit: Visit) -> None:
    await visit.head()
    await visit.until_closed()


async def hang_in_headers(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/ev")
    await visit.until_closed()


async def hang_mid_stream(visit: Visit) -> None:
    await visit.head()
    await visit.event(chunk("Half an"))
    await visit.until_closed()


async def hang_in_an_error(visit: Visit) -> None:
    await visit.head(503, "application/json")
    await visit.chunk(b'{"error": {"type": "overlo')
    await visit.until_closed()


async def hang_at_the_end(visit: Visit) -> None:
    await visit.head()
    await visit.event(chunk("All of it."))
    await visit.event(chunk(finish="stop"))
    await visit.until_closed()


def keeping_alive(*before: object) -> Play:
    """Comments, as from a router whose model does not answer, until the client has enough."""

    async def play(visit: Visit) -> None:
        await visit.head()
        for value in before:
            await visit.event(value)
        while True:
            await visit.chunk(b": still processing\n\n")
            await trio.sleep(SHORT / 10)

    return play


async def no_answer(visit: Visit) -> None:
    visit.close()


async def no_http(visit: Visit) -> None:
    await visit.send(b"SSH-2.0-OpenSSH_9.2\r\n")
    visit.close()


async def cut_before_the_first_token(visit: Visit) -> None:
    await visit.head()
    visit.close()


async def cut_mid_stream(visit: Visit) -> None:
    await visit.head()
    await visit.event(chunk("Half an"))
    visit.close()


async def cut_in_an_event(visit: Visit) -> None:
    await visit.head()
    await visit.event(chunk("Half an"))
    await visit.chunk(event(chunk(" answer"))[:40])
    visit.close()


async def cut_without_chunks(visit: Visit) -> None:
    """The end of the connection is the end of the answer, which has none."""
    await visit.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    await visit.send(event(chunk("Half an")))
    visit.close()


async def cut_behind_the_end(visit: Visit) -> None:
    await visit.head()
    await visit.event(chunk("All of it."))
    await visit.event(chunk(finish="stop"))
    await visit.chunk(b'data: {"choices":[],"us')
    visit.close()


async def endless_line(visit: Visit) -> None:
    await visit.head()
    await visit.chunk(b"data: ")
    while True:
        await visit.chunk(b"x" * 65536)


async def endless_event(visit: Visit) -> None:
    await visit.head()
    while True:
        await visit.chunk(b"data: x\n" * 8192)


async def endless_answer(visit: Visit) -> None:
    await visit.head()
    await visit.event(chunk("Word"))
    while True:
        await visit.chunk((b":" * 1023 + b"\n") * 512)


def whole(data: bytes, media_type: str = "text/event-stream", **headers: str) -> Play:
    """An answer as one piece."""

    async def play(visit: Visit) -> None:
        await visit.head(200, media_type, **headers)
        await visit.chunk(data)
        await visit.end()

    return play


def in_pieces(data: bytes, size: int) -> Play:
    """An answer in pieces of that many bytes, each on its way alone."""

    async def play(visit: Visit) -> None:
        await visit.head()
        for at in range(0, len(data), size):
            await visit.chunk(data[at : at + size])
        await visit.end()

    return play


def breaking_off(error: object) -> Play:
    """An error in the middle of an answer."""
    return streaming(chunk("Half an"), {"error": error}, then=b"")


def _first(name: str, play: Callable[[Visit], Awaitable[None]]) -> Fault:
    return Fault(name, "provider_timeout", play, settings={FIRST: SHORT})


AUTH, RATE, GONE = "provider_auth", "provider_rate", "provider_unavailable"
BAD, SLOW = "provider_protocol", "provider_timeout"
HALF, ALL = "Half an", "All."
KEPT_ALIVE = keeping_alive(chunk(HALF))
OOPS = b"data: oops\n\n"
NO_CREDIT = {"error": {"code": "insufficient_quota"}}
BAD_GATEWAY = b'{"error":{"code":502}}'
COME_BACK = refusing(429, retry_after="1")
PATIENT = {"retry_seconds": 5.0}
WELL = whole(answer([ALL]))
ENDED = (chunk(ALL), chunk(finish="stop"))

FAULTS = [
    Fault("refuses the connection", GONE, None),
    # ---- hangs
    _first("accepts and hangs", hang),
    _first("hangs in the headers", hang_in_headers),
    _first("hangs after the headers", hang_after_headers),
    _first("keeps alive and never answers", keeping_alive(chunk("", role="assistant"))),
    Fault("hangs mid stream", SLOW, hang_mid_stream, HALF, {SILENCE: PAUSE}),
    Fault("keeps alive mid stream", SLOW, KEPT_ALIVE, HALF, {SILENCE: PAUSE}),
    # ---- statuses
    Fault("401", AUTH, refusing(401, {"error": {"code": "invalid_api_key"}})),
    Fault("403", AUTH, refusing(403)),
    Fault("402", RATE, refusing(402)),
    Fault("429", RATE, refusing(429)),
    Fault("429 and come back in a while", RATE, refusing(429, retry_after="1")),
    Fault("429 and come back in an hour", RATE, refusing(429, retry_after="3600")),
    Fault("429 as there is no credit", RATE, refusing(429, NO_CREDIT)),
    Fault("500", GONE, refusing(500)),
    Fault("503 with a page", GONE, refusing(503, "<html>sorry</html>")),
    Fault("529", GONE, refusing(529, {"error": {"type": "overloaded_error"}})),
    Fault("400", BAD, refusing(400, {"error": {"type": "invalid_request_error"}})),
    Fault("404", BAD, refusing(404, {"error": {"code": "model_not_found"}})),
    # ---- answers that are none
    Fault("goes without an answer", BAD, no_answer),
    Fault("does not speak HTTP", BAD, no_http),
    Fault("answers with a page", BAD, whole(b"<html>Sign in</html>", "text/html")),
    Fault("answers at once", BAD, whole(b'{"choices":[{"message":{}}]}', "application/json")),
    Fault("answers compressed", BAD, whole(answer(["x"]), content_encoding="gzip")),
    Fault("answers nothing", BAD, whole(b"\n")),
    Fault("breaks JSON", BAD, whole(b'data: {"choices":[{\n\n')),
    Fault("breaks JSON mid stream", BAD, streaming(chunk(HALF), then=OOPS), HALF),
    Fault("breaks UTF-8", BAD, whole(b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n')),
    Fault("breaks the shape", BAD, streaming({"choices": [{"delta": {"content": 1}}]})),
    # ---- cuts
    Fault("is cut before the first token", BAD, cut_before_the_first_token),
    Fault("is cut mid stream", BAD, cut_mid_stream, HALF),
    Fault("is cut in an event", BAD, cut_in_an_event, HALF),
    Fault("is cut without chunks", BAD, cut_without_chunks, HALF),
    # ---- too much
    Fault("never ends a line", BAD, endless_line),
    Fault("never ends an event", BAD, endless_event),
    # ---- errors in the stream
    Fault("breaks off with a status", RATE, breaking_off({"code": 429}), HALF),
    Fault("breaks off with a word", GONE, breaking_off({"type": "server_error"}), HALF),
    Fault("breaks off with a sentence", GONE, breaking_off("out of memory"), HALF),
    Fault("breaks off for the key", AUTH, breaking_off({"code": "invalid_api_key"}), HALF),
    Fault("is an error at once", GONE, streaming({"error": {"code": 502}})),
    Fault("is a bare error", BAD, streaming({"object": "error", "message": "no", "code": 400})),
    Fault("is an error instead of a stream", GONE, whole(BAD_GATEWAY, "application/json")),
    # ---- odd, and well
    Fault("sends single bytes", None, in_pieces(answer(["Grüße ", "💡"]), 1), "Grüße 💡"),
    Fault("splits characters", None, in_pieces(answer(["日本語", "💡"]), 7), "日本語💡"),
    Fault("never says it is done", None, streaming(*ENDED, then=b""), ALL),
    Fault("says no more than done", None, streaming(chunk(ALL)), ALL),
    Fault("ends without a blank line", None, whole(answer([ALL]).rstrip(b"\n")), ALL),
    Fault("ends lines with CR LF", None, whole(answer([ALL]).replace(b"\n", b"\r\n")), ALL),
    Fault("keeps alive between", None, whole(b": wait\n\n" + answer([ALL])), ALL),
    Fault("is cut behind the end", None, cut_behind_the_end, "All of it."),
]  # fmt: skip


def alternating(*plays: Play) -> Play:
    """One play for each request, round and round."""
    turns = cycle(plays)

    async def play(visit: Visit) -> None:
        await next(turns)(visit)

    return play


TRIED_AGAIN = [
    Fault("is busy for a moment", None, alternating(refusing(503), WELL), ALL, PATIENT),
    Fault("asks to be left alone", None, alternating(COME_BACK, WELL), ALL, PATIENT),
    Fault("is cut at first", None, alternating(cut_before_the_first_token, WELL), ALL, PATIENT),
    Fault("goes away for a moment", None, alternating(no_answer, WELL), ALL, PATIENT),
]  # fmt: skip

SLOW_TO_SHOW = [
    Fault("hangs in an error", GONE, hang_in_an_error),
    Fault("hangs at the end", None, hang_at_the_end, "All of it."),
    Fault("never ends", BAD, endless_answer, "Word"),
]
