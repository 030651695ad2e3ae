"""The word on a daemon of another version."""

from moorage_clients.version import difference


def test_same_version_needs_no_word() -> None:
    assert difference("1.2", "1.2") is None


def test_word_on_another_version_says_both_and_what_to_do() -> None:
    found = difference("1.2", "1.3")

    assert found is not None
    assert "1.2" in found
    assert "1.3" in found
    assert "moorage daemon stop" in found
