"""Secrets are taken out of texts in all their forms, however a text is cut into pieces."""

import json
import logging
import subprocess
from itertools import pairwise

import pytest
from hypothesis import find, given, strategies as st

from moorage_daemon.log_lines import LOG_FORMAT, LogLines
from moorage_daemon.scrubbing import MIN_SECRET, Scrubber, Stream, hide_in_logs
from tests.daemon.canaries import FORMS, disguises


SECRET = "s3cr3t/+\"'$(x) `y` \\ &ü?"
MARK = "[secret]"
KEY = "-----BEGIN KEY-----\nabcdefghijkl\nmnopqrstuvwx\nyz\n-----END KEY-----\n"


def scrubber(*secrets: str) -> Scrubber:
    return Scrubber(dict.fromkeys(secrets, MARK))


@pytest.mark.parametrize("form", FORMS)
def test_secret_is_taken_out_in_the_forms_in_which_programs_print_it(form: str) -> None:
    shown = FORMS[form](SECRET)

    scrubbed = scrubber(SECRET).scrub(f"before {shown} after")

    assert MARK in scrubbed
    assert scrubbed.startswith("before ")
    assert scrubbed.endswith(" after")
    assert [form for form in disguises(SECRET) if form in scrubbed.encode()] == []


def test_long_secret_is_taken_out_of_base64_in_lines() -> None:
    secret = "-".join(str(number) for number in range(100))
    shown = subprocess.run(["base64"], input=secret.encode(), capture_output=True, check=True)

    scrubbed = scrubber(secret).scrub(shown.stdout.decode())

    assert scrubbed.rstrip("=\n")[:-1] == MARK, "but for the bits of its last letter"


def test_line_of_a_longer_secret_is_taken_out_too() -> None:
    scrubbed = scrubber(KEY).scrub("x mnopqrstuvwx y\n" + KEY)

    assert scrubbed == f"x {MARK} y\n{MARK}"


def test_secret_is_taken_out_of_a_text_with_other_line_ends() -> None:
    assert scrubber(KEY).scrub(KEY.replace("\n", "\r\n")).strip() == MARK


def test_secrets_that_overlap_leave_nothing_of_each_other() -> None:
    assert scrubber("abcdefgh1234", "1234ijklmnop").scrub("<abcdefgh1234ijklmnop>") == f"<{MARK}>"


def test_json_stays_json_and_what_is_no_secret_stays_byte_for_byte() -> None:
    data = rb'{ "a\u0062cdefgh":[1, 12345678,"x abcdefgh", "\u00e9"] }'

    scrubbed = scrubber("abcdefgh", "12345678").scrub_json(data)

    assert scrubbed == rb'{ "[secret]":[1, "[secret]","x [secret]", "\u00e9"] }'


@given(cut=st.integers(4, len(SECRET) - 1), before=st.text("ab \n", max_size=5))
def test_secret_that_is_cut_at_an_edge_is_taken_out(cut: int, before: str) -> None:
    scrub = scrubber(SECRET).scrub

    assert SECRET[:cut] not in scrub(before + SECRET[:cut], is_cut=True)
    assert SECRET[-cut:] not in scrub(SECRET[-cut:] + before, is_cut=True)


@given(st.text())
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    found = scrubber("a-secret-that-is-nowhere")

    assert found.scrub(text) == text
    assert found.scrub_json(json.dumps(text).encode()) == json.dumps(text).encode()


# ---- texts that come in pieces


Story = tuple[list[str], list[str]]


def is_long(secret: str) -> bool:
    return len(secret.strip()) >= MIN_SECRET


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Secrets, and the pieces of a text with them, or their beginnings, in all forms."""
    odd = st.text('ab-\n"\\/ é', min_size=MIN_SECRET, max_size=24).filter(is_long)
    secrets = draw(st.lists(odd, min_size=1, max_size=3))
    parts: list[str] = []
    for _ in range(draw(st.integers(1, 5))):
        told = FORMS[draw(st.sampled_from(sorted(FORMS)))](draw(st.sampled_from(secrets)))
        parts += [draw(st.text("ab-\n x", max_size=6)), told[: draw(st.integers(0, len(told)))]]
        parts.append(draw(st.sampled_from(["", told])))
    text = "".join(parts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    ends = [0, *cuts, len(text)]
    return secrets, [text[a:b] for a, b in pairwise(ends)]


def tells(secrets: list[str], told: str) -> bool:
    return any(secret in told for secret in secrets)


@given(stories())
def test_however_a_text_is_cut_no_secret_of_it_is_told(story: Story) -> None:
    secrets, pieces = story
    stream = Stream(scrubber(*secrets))

    told = "".join(stream.feed(piece) for piece in pieces)

    assert not tells(secrets, told)
    assert not tells(secrets, told + stream.pause())


@given(stories(), st.data())
def test_wherever_something_else_is_said_between_no_secret_is_told(
    story: Story, data: st.DataObject
) -> None:
    secrets, pieces = story
    stream = Stream(scrubber(*secrets))

    told = ""
    for piece in pieces:
        told += stream.feed(piece)
        if data.draw(st.booleans()):
            told += stream.pause()

    assert not tells(secrets, told + stream.pause())


@given(st.lists(st.text("hunter2- x"), max_size=6))
def test_what_is_no_secret_is_told_whole(pieces: list[str]) -> None:
    stream = Stream(scrubber("hunter2-hunter2"))

    told = "".join(stream.feed(piece) for piece in pieces) + stream.pause()

    if "hunter2-" not in "".join(pieces):
        assert told == "".join(pieces)


def test_stories_hold_secrets_that_a_scrubber_of_single_pieces_would_tell() -> None:
    def is_told_piece_by_piece(story: Story) -> bool:
        secrets, pieces = story
        return tells(secrets, "".join(scrubber(*secrets).scrub(piece) for piece in pieces))

    find(stories(), is_told_piece_by_piece)


def test_text_is_held_back_only_where_a_secret_may_begin() -> None:
    stream = Stream(scrubber("hunter2-hunter2"))

    told = [stream.feed(piece) for piece in ("we hunt", " with hunter2", "-", "x")]

    assert told == ["we ", "hunt with ", "", "hunter2-x"]


def test_beginning_is_told_before_something_else_and_the_rest_is_not() -> None:
    stream = Stream(scrubber("hunter2-hunter2"))

    told = [stream.feed("a hun"), stream.pause(), stream.feed("ter2-hunter2 b"), stream.pause()]

    assert told == ["a ", "hun", f"{MARK} b", ""]


def test_half_of_a_secret_is_not_told_before_something_else() -> None:
    stream = Stream(scrubber("hunter2-hunter2"))

    told = [stream.feed("a hunter2-hun"), stream.pause(), stream.feed("ter2 b")]

    assert told == ["a ", MARK, f"{MARK} b"]


# ---- what is logged


async def test_secret_stands_in_no_line_of_the_log_that_its_task_writes() -> None:
    lines = LogLines(LOG_FORMAT)
    hide_in_logs(scrubber(KEY).scrub)
    problem = ValueError(f"what is {KEY}?")
    record = logging.LogRecord("a", 40, "", 1, "%s", (KEY,), (ValueError, problem, None))
    vars(record)["key"] = KEY

    line = lines.format(record)

    assert "abcdefghijkl" not in line
    assert line.count(MARK) == 3
