"""What is asked of a model, and what its events mean, server by server."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest

from moorage_daemon.providers.chat import (
    Reading,
    encode_request,
    failure_in_answer,
    failure_of_status,
)
from moorage_daemon.providers.failures import BadAnswer, RateLimited, Unavailable
from moorage_daemon.providers.port import (
    Ending,
    Finished,
    Message,
    Piece,
    Request,
    Role,
    Said,
    Thought,
    Usage,
)
from tests.daemon.providers.fake import chunk, usage


REQUEST = Request(
    "small",
    [
        Message(Role.SYSTEM, "Be brief."),
        Message(Role.USER, "Hello"),
        Message(Role.ASSISTANT, "Hi"),
        Message(Role.USER, "Who are you?"),
    ],
)


def read(*events: object) -> Sequence[Piece]:
    """The pieces of an answer of these events; bytes are taken as they are."""
    reading = Reading()
    pieces: list[Piece] = []
    for event in events:
        data = event if isinstance(event, bytes) else msgspec.json.encode(event)
        pieces += reading.take(data)
    return [*pieces, reading.finish()]


# ---- what is asked


def test_request_is_what_the_servers_document() -> None:
    assert msgspec.json.decode(encode_request(REQUEST, asks_usage=True)) == {
        "model": "small",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "Who are you?"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_what_was_not_chosen_is_left_to_the_server() -> None:
    plain = msgspec.json.decode(encode_request(REQUEST, asks_usage=False))
    cool = msgspec.json.decode(encode_request(replace(REQUEST, temperature=0.0), asks_usage=False))

    assert plain.keys() == {"model", "messages", "stream"}
    assert cool["temperature"] == 0.0


# ---- what is answered


@pytest.mark.parametrize(
    ("details", "cached", "reasoned"),
    [
        ({}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 0}}, 5, 0),
        ({"completion_tokens_details": {"reasoning_tokens": 2}}, 0, 2),
        ({"prompt_tokens_details": None, "completion_tokens_details": []}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": None}}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": -1}}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": 99}}, 9, 0),
        ({"completion_tokens_details": {"reasoning_tokens": 99}}, 0, 2),
    ],
)
def test_details_of_usage_count_as_far_as_they_make_sense(
    details: dict[str, Any], cached: int, reasoned: int
) -> None:
    reading = Reading()
    said: dict[str, Any] = {
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, **details},
    }
    reading.take(msgspec.json.encode(said))
    reading.take(b"[DONE]")

    assert reading.finish().usage == Usage(9, 2, cached, reasoned)


OPENAI = [
    chunk("", role="assistant", refusal=None),
    chunk("Hel"),
    chunk("lo"),
    chunk(finish="stop"),
    usage(9, 2),
    b"[DONE]",
]
OLLAMA = [chunk("Hello"), {**chunk("", finish="stop"), "usage": None}, usage(9, 2), b"[DONE]"]
LLAMA_CPP: list[Any] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]},
    chunk("Hello"),
    {**chunk(finish="stop"), "timings": {"prompt_n": 9}},
    {"choices": [], "usage": {"completion_tokens": 2, "prompt_tokens": 9, "total_tokens": 11}},
    b"[DONE]",
]
OPENROUTER: list[Any] = [
    {"choices": [{"index": 0, "delta": {"content": "Hello"}, "native_finish_reason": None}]},
    {
        **chunk("", finish="stop"),
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "cost": 0.1},
    },
    b"[DONE]",
]
AZURE: list[Any] = [
    {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
    chunk("Hello"),
    chunk(finish="stop"),
    {"choices": None, "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
    b"[DONE]",
]


@pytest.mark.parametrize(
    "events",
    [OPENAI, OLLAMA, LLAMA_CPP, OPENROUTER, AZURE],
    ids=["openai", "ollama", "llama.cpp", "openrouter", "azure"],
)
def test_servers_are_understood_in_their_dialects(events: list[Any]) -> None:
    *pieces, end = read(*events)

    assert "".join(piece.text for piece in pieces if isinstance(piece, Said)) == "Hello"
    assert end == Finished(Ending.DONE, Usage(9, 2))


def test_server_that_does_not_count_is_not_counted_for() -> None:
    assert read(chunk("a"), chunk(finish="stop"))[-1] == Finished(Ending.DONE, None)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_told_apart(name: str) -> None:
    thinking = {"choices": [{"delta": {name: "Hm."}}]}

    assert read(thinking, chunk("Yes"), b"[DONE]") == [
        Thought("Hm."),
        Said("Yes"),
        Finished(Ending.DONE),
    ]


@pytest.mark.parametrize(
    ("reason", "ending"),
    [
        ("stop", Ending.DONE),
        ("length", Ending.TOO_LONG),
        ("content_filter", Ending.REFUSED),
        ("eos", Ending.DONE),
    ],
)
def test_reason_to_stop_is_kept(reason: str, ending: Ending) -> None:
    assert read(chunk("a", finish=reason))[-1] == Finished(ending)


def test_refusal_is_said_and_is_the_end() -> None:
    assert read(chunk(refusal="I will not."), chunk(finish="stop")) == [
        Said("I will not."),
        Finished(Ending.REFUSED),
    ]


def test_only_the_first_of_several_choices_is_heard() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "length"}]}

    assert read(chunk("a"), other, chunk(finish="stop")) == [Said("a"), Finished(Ending.DONE)]


def test_answer_without_any_end_was_cut() -> None:
    with pytest.raises(BadAnswer) as caught:
        read(chunk("a"))

    assert caught.value.may_pass


@pytest.mark.parametrize(
    "event",
    [b"", b"null", b"[]", b"{", b'{"choices": {}}', b"\xff", b"[" * 100_000, b'{"choices":[null]}'],
    ids=lambda event: repr(event[:12]),
)
def test_what_is_no_chunk_is_refused(event: bytes) -> None:
    with pytest.raises(BadAnswer) as caught:
        read(event)

    assert not caught.value.may_pass


# ---- what went wrong


def now_plus(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("0", 0, 0), ("2", 2, 2), ("1.5", 1.5, 1.5), ("-3", 0, 0)],
)
def test_time_to_come_back_is_read(text: str, least: float, most: float) -> None:
    failure = failure_of_status(429, {"retry-after": text}, b"")

    assert isinstance(failure, RateLimited)
    assert failure.retry_after is not None
    assert least <= failure.retry_after <= most


def test_time_to_come_back_may_be_a_date() -> None:
    failure = failure_of_status(429, {"retry-after": now_plus(100)}, b"")

    assert isinstance(failure, RateLimited)
    assert failure.retry_after is not None
    assert 90 <= failure.retry_after <= 100


def test_time_to_come_back_that_has_passed_is_now() -> None:
    failure = failure_of_status(503, {"retry-after": now_plus(-100)}, b"")

    assert isinstance(failure, Unavailable)
    assert failure.retry_after == 0


@pytest.mark.parametrize("text", ["", "soon", "inf", "nan", "1e999", "Fri, 99 Foo 2000"])
def test_nonsense_for_a_time_is_no_time(text: str) -> None:
    assert failure_of_status(429, {"retry-after": text}, b"").retry_after is None


def test_having_no_credit_does_not_pass() -> None:
    body = b'{"error":{"code":"insufficient_quota","type":"insufficient_quota"}}'

    assert not failure_of_status(429, {}, body).may_pass
    assert failure_of_status(429, {}, b"").may_pass


@pytest.mark.parametrize(
    "error",
    [
        {"code": "sk-canary"},
        {"code": "SKCANARY1", "type": "canary9"},
        {"message": "Incorrect API key: skcanary"},
        {"code": "SkCanaryKey"},
        {"code": ["canary"]},
        {"type": "canary: canary"},
        "canary",
    ],
)
def test_what_a_provider_wrote_is_not_repeated(error: object) -> None:
    body = msgspec.json.encode({"error": error})

    assert "canary" not in str(failure_of_status(400, {}, body)).lower()
    assert "canary" not in str(failure_in_answer(body)).lower()


def test_word_in_capitals_says_what_is_wrong_and_is_repeated_in_capitals() -> None:
    body = b'{"error":{"code":"INSUFFICIENT_QUOTA"}}'

    failure = failure_of_status(429, {}, body)

    assert not failure.may_pass
    assert "INSUFFICIENT_QUOTA" in str(failure)
    assert isinstance(failure_in_answer(b'{"error":{"type":"RATE_LIMITED"}}'), RateLimited)


def test_word_that_says_what_is_wrong_is_repeated() -> None:
    body = b'{"error":{"code":"model_not_found","message":"There is no sk-canary"}}'

    assert str(failure_of_status(404, {}, body)) == "it answered 404 model_not_found"


@pytest.mark.parametrize("has_new_limit", [True, False])
def test_bound_of_an_answer_has_the_name_that_the_model_knows(*, has_new_limit: bool) -> None:
    request = replace(REQUEST, max_tokens=7)

    body = msgspec.json.decode(
        encode_request(request, asks_usage=False, has_new_limit=has_new_limit)
    )

    old, new = body.get("max_tokens"), body.get("max_completion_tokens")
    assert (old, new) == ((None, 7) if has_new_limit else (7, None))
