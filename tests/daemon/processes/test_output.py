"""Bounded output: what is kept, what is marked, and no character cut in two."""

import tracemalloc

import pytest
from hypothesis import given, strategies as st

from moorage_daemon.processes.output import KEPT, WHOLE, Output


def written(*chunks: bytes) -> Output:
    output = Output()
    for chunk in chunks:
        output.add(chunk)
    return output


def test_short_output_is_kept_whole() -> None:
    output = written(b"one\n", b"", b"two\n")

    assert output.text() == "one\ntwo\n"
    assert (output.total, output.left_out) == (8, 0)


def test_output_of_exactly_the_kept_size_is_not_marked() -> None:
    output = written(b"a" * KEPT, b"b" * KEPT)

    assert output.text() == "a" * KEPT + "b" * KEPT


def test_one_byte_more_is_marked() -> None:
    output = written(b"a" * KEPT, b"b", b"c" * KEPT)

    assert output.text() == "a" * KEPT + "\n[... 1 bytes left out ...]\n" + "c" * KEPT


def test_all_of_it_is_there_where_only_the_ends_are_shown() -> None:
    lines = b"".join(b"line %d\n" % number for number in range(100_000))

    assert written(b"short").whole() is None
    assert written(b"a" * 2 * KEPT).whole() is None
    assert written(lines[:500_000], lines[500_000:]).whole() == lines.decode()


@pytest.mark.parametrize("more", [0, 1, KEPT, KEPT + 1, 10 * KEPT])
def test_what_is_lost_of_a_flood_is_marked(more: int) -> None:
    output = written(b"a" * WHOLE, b"b" * more)

    lost = max(0, more - KEPT)
    mark = f"\n[... {lost:,} bytes left out ...]\n" if lost else ""
    assert output.whole() == "a" * WHOLE + mark + "b" * min(more, KEPT)
    assert output.text().startswith("a" * KEPT + f"\n[... {WHOLE + more - 2 * KEPT:,} bytes")
    assert output.text().endswith("b" * min(more, KEPT))


def test_invalid_bytes_show() -> None:
    assert written(b"a\xff\x00b").text() == "a\ufffd\x00b"


def test_character_that_the_cut_went_through_is_dropped() -> None:
    output = written(b"a" + "é".encode() * 100 * KEPT)

    assert "\ufffd" not in output.text()
    assert "\ufffd" not in output.tail()


def test_character_that_is_not_complete_yet_does_not_show_in_the_tail() -> None:
    output = written(b"na\xc3")

    assert output.tail() == "na"
    assert output.text() == "na\ufffd"


@pytest.mark.parametrize("size", [0, 5, KEPT - 1, KEPT + 5, 2 * KEPT + 5, 5 * KEPT])
def test_tail_is_the_end_whatever_came_before(size: int) -> None:
    assert written(b"x" * size, b"0123456789").tail(10) == "0123456789"


@given(st.lists(st.integers(0, 3 * KEPT), max_size=8))
def test_beginning_and_end_do_not_depend_on_how_it_came(sizes: list[int]) -> None:
    data = bytes(ord("a") + i % 26 for i in range(sum(sizes)))
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    output = written(*(data[end - size : end] for size, end in zip(sizes, ends, strict=True)))

    head, _, tail = output.text().partition("\n[... ")
    assert output.total == len(data)
    assert output.left_out == max(0, len(data) - 2 * KEPT)
    if output.left_out:
        assert head.encode() == data[:KEPT]
        assert tail.encode().endswith(data[-KEPT:])
    else:
        assert head.encode() == data


def test_memory_does_not_grow_with_what_is_written() -> None:
    output, chunk = Output(), b"x" * 2 * KEPT
    tracemalloc.start()
    try:
        for _ in range(1000):
            output.add(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert output.total == 2000 * KEPT
    assert peak < 2 * WHOLE
