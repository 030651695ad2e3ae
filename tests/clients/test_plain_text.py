"""What agents say reaches the terminal as text only, however it is cut into pieces."""

import pytest
from hypothesis import given, strategies as st

from moorage_clients.plain_text import MAX_SEQUENCE, PlainText, one_line, plain, visible


# (what an agent says, what a person sees)
CORPUS = [
    ("plain text\twith a tab\nand a line", "plain text\twith a tab\nand a line"),
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x9b31mred\x9b0m", "red"),
    ("a\x1b[2J\x1b[1;1Hb", "ab"),
    ("a\x1b[?25lb\x1b[>4;2mc\x1b[1 qd", "abcd"),
    ("\x1b]0;title\x07x", "x"),
    ("\x1b]0;title\x1b\\x", "x"),
    ("\x9d0;title\x9cx", "x"),
    ("\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("\x1b]52;c;cm0gLXJmIC8=\x07x", "x"),
    ("\x1bP$qm\x1b\\x", "x"),
    ("\x1bP1;2|payload\x9cx", "x"),
    ("\x1b_Gf=100;AAAA\x1b\\x", "x"),
    ("\x1b^private\x1b\\x", "x"),
    ("\x1bXstart of string\x1b\\x", "x"),
    ("\x1bc\x1b7\x1b8\x1b(0\x1b#8x", "x"),
    ("\x1b\x1b[31mx", "x"),
    ("\x1b[31\x1b[32mx", "x"),
    ("\x1b]0;a\x1b[32mx", "x"),
    ("\x1b[3\x181mx", "1mx"),
    ("good\rbad", "good\nbad"),
    ("one\r\ntwo\r\n", "one\ntwo\n"),
    ("one\r\r\ntwo", "one\n\ntwo"),
    ("a\bb\x00c\x7fd\x85e\x0bf\x0cg\x07h", "abcdefgh"),
    ("user \u202etxt.exe\u202c", "user txt.exe"),
    ("\u2066a\u2069\u200fb\u061cc", "abc"),
    ("pay\u200bpal\ufeff", "paypal"),
    ("a\u2028b\u2029c", "abc"),
    ("ta\U000e0041gs", "tags"),
    ("\U0001f469\u200d\U0001f4bb and ❤\ufe0f", "\U0001f469\u200d\U0001f4bb and ❤\ufe0f"),
    ("lone \ud800 surrogate", "lone  surrogate"),
    ("\x1bé", "é"),
    ("\x1b[31é", "é"),
    ("cut \x1b[3", "cut "),
    ("cut \x1b]0;never ends\nnext line", "cut \nnext line"),
]


@pytest.mark.parametrize(("said", "shown"), CORPUS, ids=[repr(said) for said, _ in CORPUS])
def test_escape_sequences_are_taken_out_whole(said: str, shown: str) -> None:
    assert plain(said) == shown


@pytest.mark.parametrize("said", [said for said, _ in CORPUS], ids=repr)
def test_cut_at_any_place_makes_no_difference(said: str) -> None:
    for cut in range(len(said) + 1):
        stream = PlainText()

        assert stream.feed(said[:cut]) + stream.feed(said[cut:]) == plain(said)


@pytest.mark.parametrize("start", ["\x1b]", "\x1b[", "\x1bP", "\x1b "], ids=repr)
def test_sequence_that_never_ends_swallows_a_bounded_part(start: str) -> None:
    said = start + "1" * 2 * MAX_SEQUENCE + " still here"

    assert plain(said).endswith(" still here")


HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("\x1b\x9b\x9d\x90\x9c\x07\x18\r\n\t[]P;m0 \\\u202e\u2069\u200b\ud800"),
    )
)


@given(HOSTILE)
def test_nothing_a_terminal_acts_on_is_left(said: str) -> None:
    for character in plain(said):
        code = ord(character)
        assert character in "\n\t" or (code >= 0x20 and not 0x7F <= code <= 0x9F)
        assert not 0xD800 <= code <= 0xDFFF
        assert not 0x202A <= code <= 0x202E
        assert not 0x2066 <= code <= 0x2069


@given(st.lists(HOSTILE))
def test_pieces_give_what_the_whole_gives(pieces: list[str]) -> None:
    stream = PlainText()

    assert "".join(stream.feed(piece) for piece in pieces) == plain("".join(pieces))


@given(HOSTILE)
def test_filtered_text_passes_unchanged(said: str) -> None:
    assert plain(plain(said)) == plain(said)


@given(HOSTILE)
def test_question_shows_every_character_of_what_is_asked(said: str) -> None:
    shown = visible(said)

    assert shown.isprintable()
    assert len(shown) >= len(said)


def test_question_shows_control_characters_as_escapes() -> None:
    assert visible("rm x\x1b[8m -rf /\n\u202e") == "rm x\\x1b[8m -rf /\\n\\u202e"


def test_title_is_one_line_of_bounded_width() -> None:
    assert one_line("a\n\tb\x1b[1m c", 80) == "a b c"
    assert one_line("x" * 81, 80) == "x" * 79 + "…"
