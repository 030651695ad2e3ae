"""Which session a few characters stand for."""

import pytest

from moorage_clients.cli.choosing import last_of, matching, short_ids
from moorage_clients.cli.exits import Exit, Failure
from moorage_protocol.acp import Meta
from moorage_protocol.moorage import LiveRow, Mode, SessionInfo, State


def session(session_id: str, cwd: str = "/here", *, killed: bool = False) -> SessionInfo:
    row = LiveRow(
        session_id=session_id, agent="scripted", owner="o", principal="local", mode=Mode.CODE,
        cwd=cwd, state=State.IDLE, generation=0, seq=1, queued=0, pending_permissions=0,
        attached=0, created_at=1.0, updated_at=1.0, killed=killed, title="T \x1b[2J",
    )  # fmt: skip
    return SessionInfo(session_id=session_id, cwd=cwd, title=row.title, meta=Meta(moorage=row))


SESSIONS = [session("abcd"), session("abce"), session("xyz"), session("xyzzy"),
            session("dead", killed=True)]  # fmt: skip


def test_start_of_an_id_is_enough() -> None:
    assert matching("abcd", SESSIONS, killed=False) == "abcd"
    assert matching("xyzz", SESSIONS, killed=False) == "xyzzy"


def test_whole_id_wins_over_a_longer_one_that_begins_with_it() -> None:
    assert matching("xyz", SESSIONS, killed=False) == "xyz"


def test_start_of_several_ids_names_them_all_and_nothing_else_of_theirs() -> None:
    with pytest.raises(Failure) as caught:
        matching("abc", SESSIONS, killed=False)

    assert caught.value.code is Exit.NO_SESSION
    assert caught.value.hint.splitlines() == ["  abcd  T  /here", "  abce  T  /here"]


@pytest.mark.parametrize("given", ["q", ""])
def test_start_of_no_id_is_no_session(given: str) -> None:
    with pytest.raises(Failure) as caught:
        matching(given, SESSIONS, killed=True)

    assert caught.value.code is Exit.NO_SESSION


def test_killed_session_is_only_found_where_it_can_be_used() -> None:
    assert matching("de", SESSIONS, killed=True) == "dead"
    with pytest.raises(Failure) as caught:
        matching("de", SESSIONS, killed=False)

    assert caught.value.code is Exit.KILLED


def test_killed_session_does_not_make_a_start_ambiguous_for_the_living() -> None:
    sessions = [session("aa1", killed=True), session("aa2")]

    assert matching("aa", sessions, killed=False) == "aa2"


def test_default_is_the_last_used_of_the_directory_that_is_not_killed() -> None:
    sessions = [session("k", killed=True), session("far", "/there"), session("new"), session("old")]

    assert last_of(sessions, "/here") == "new"
    with pytest.raises(Failure) as caught:
        last_of(sessions, "/nowhere")
    assert caught.value.code is Exit.NO_SESSION


def test_short_ids_tell_sessions_apart() -> None:
    ids = ["aaaaaaaa", "aaaaaabb", "aaaaaabc", "bcdefghi"]

    assert short_ids(ids) == {
        "aaaaaaaa": "aaaaaaa", "aaaaaabb": "aaaaaabb", "aaaaaabc": "aaaaaabc", "bcdefghi": "bcde",
    }  # fmt: skip
    assert short_ids([]) == {}
