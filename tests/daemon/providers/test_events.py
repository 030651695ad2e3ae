"""Events come out the same however their bytes are cut, and what does not end is refused."""

import pytest
from hypothesis import given, strategies as st

from moorage_daemon.providers.events import MAX_EVENT, Events, TooLarge


def all_of(*chunks: bytes) -> list[bytes]:
    events = Events()
    found = [event for chunk in chunks for event in events.feed(chunk)]
    return found + events.flush()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"", []),
        (b"\n\n\n", []),
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a: b\n\n", [b"a: b"]),
        (b"data\n\n", [b""]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\n\r\ndata: b\r\n\n", [b"a", b"b"]),
        (b": a comment\n\ndata: a\n: another\n\n", [b"a"]),
        (b"event: x\nid: 1\nretry: 2\ndata: a\n\n", [b"a"]),
        (b"event: x\n\n", []),
        (b"datum: a\n\n", []),
        (b" data: a\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b"data: a\n\ndata: b", [b"a", b"b"]),
        (b"data: a\n\ndata: b\n", [b"a", b"b"]),
        (b"data: a\xe2\x80\xa8b\x0bc\x1cd\x85e\n\n", [b"a\xe2\x80\xa8b\x0bc\x1cd\x85e"]),
    ],
)
def test_stream_is_read_as_the_standard_says(stream: bytes, events: list[bytes]) -> None:
    assert all_of(stream) == events
    assert all_of(*(bytes([byte]) for byte in stream)) == events


PIECES = [b"data", b":", b" ", b"a", b"\r", b"\n", b"\r\n", b"\n\n", b"x: y", b"\xc3\xa9"]


@given(st.lists(st.sampled_from(PIECES)), st.data())
def test_where_chunks_are_cut_changes_nothing(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(stream))).map(sorted))

    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert all_of(*chunks) == all_of(stream)


def test_line_end_is_one_also_around_an_empty_chunk() -> None:
    assert all_of(b"data\r", b"", b"\ndata") == all_of(b"data\r\ndata") == [b"\n"]


@given(st.lists(st.binary().filter(lambda text: not {*b"\r\n"} & {*text})))
def test_what_was_sent_is_what_is_read(texts: list[bytes]) -> None:
    stream = b"".join(b"data: %b\n\n" % text for text in texts)

    assert all_of(stream) == texts


@pytest.mark.parametrize(
    "endless", [b"data: ", b"x", b"data: a\n", b"data\n", b": no end"], ids=repr
)
def test_what_does_not_end_is_refused_and_not_kept(endless: bytes) -> None:
    chunk = endless * 1024 if endless.endswith(b"\n") else b"y" * 8192
    fed = len(endless)

    def feed_all() -> None:
        nonlocal fed
        events = Events()
        events.feed(b"data: well\n\n" + endless)
        while fed <= 2 * MAX_EVENT:
            events.feed(chunk)
            fed += len(chunk)

    with pytest.raises(TooLarge):
        feed_all()

    assert fed <= MAX_EVENT


def test_short_events_without_end_are_no_fault() -> None:
    events = Events()
    chunk = b"data: a\n\n: comment\n\n" * 1000

    for _ in range(200):
        assert len(events.feed(chunk)) == 1000


def test_event_of_the_greatest_size_passes() -> None:
    text = b"x" * (MAX_EVENT - len(b"data: "))

    assert all_of(b"data: %b\n\n" % text[:-1]) == [text[:-1]]
    with pytest.raises(TooLarge):
        all_of(b"data: %b\n\n" % (text + b"x"))
