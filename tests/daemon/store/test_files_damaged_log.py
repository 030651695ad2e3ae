"""Damage inside the log of commits takes the sessions with it that lack something, and no other."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moorage_daemon.store.files.frames import Frames
from moorage_daemon.store.files.journal import name_of
from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.files.pieces import drafted
from moorage_daemon.store.files.reading import Reader
from moorage_daemon.store.files.shelf import Shelf
from moorage_daemon.store.port import Change, StoreBroken, StoreFull, StoreUnreadable
from tests.daemon.store.platters import Platter, Step, TestDisk, full
from tests.daemon.store.samples import a_head, creation, entries, seqs


LONG = "x" * 1000  # an id that the name of its file does not tell


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def opened(path: Path, before: Callable[[Step], None] = lambda _: None) -> Shelf:
    return open_shelf(TestDisk(path, Platter(before=before)))


def write(shelf: Shelf, *changes: Change) -> None:
    shelf.commit(changes, [drafted(change) for change in changes])


def crash(shelf: Shelf) -> None:
    """Leave all as it is: nothing moves into the journals."""
    shelf.close()


def end(shelf: Shelf) -> None:
    """Close in peace: everything moves into the journals."""
    shelf.settle_all(lambda: False)
    shelf.close()


def segment(path: Path) -> Path:
    (found,) = path.glob("commits.[0-9]")
    return found


def commits(path: Path) -> list[tuple[int, int]]:
    """Where each commit of the segment begins and ends."""
    disk = TestDisk(path, Platter())
    file = disk.create(segment(path).name)
    places = [at for at, _ in Frames(disk, file, 0, disk.size(file))]
    frames = Frames(disk, file, places[-1], disk.size(file))
    assert list(frames)
    disk.shut(file)
    return list(zip(places, [*places[1:], frames.at], strict=True))


def flip(path: Path, *numbers: int) -> None:
    """Flip a bit in the checksum of these commits."""
    content = bytearray(segment(path).read_bytes())
    for start, _ in [commits(path)[number] for number in numbers]:
        content[start + 2] ^= 1
    segment(path).write_bytes(content)


def blank(path: Path, *numbers: int) -> None:
    """Put zeros in the place of these commits."""
    content = bytearray(segment(path).read_bytes())
    for start, stop in [commits(path)[number] for number in numbers]:
        content[start:stop] = bytes(stop - start)
    segment(path).write_bytes(content)


DAMAGE = [flip, blank]
Damage = Callable[..., None]


def found(shelf: Shelf) -> dict[str, int]:
    return {stored.head.id: stored.seq for stored in shelf.sessions()}


def problems(shelf: Shelf) -> list[str]:
    return [problem.problem for problem in Reader(shelf).leftovers()]


@pytest.mark.parametrize("spoil", DAMAGE)
@pytest.mark.parametrize("leave", [crash, end])
def test_sessions_that_lack_a_commit_are_set_apart_for_good_and_all_others_load(
    path: Path, spoil: Damage, leave: Callable[[Shelf], None]
) -> None:
    shelf = opened(path)
    write(shelf, creation("s1", 1), creation("s2", 1), creation(LONG, 1))
    end(shelf)
    shelf = opened(path)
    write(shelf, Change("s2", entries(2, 2)))
    write(shelf, Change("s1", entries(2, 2)), Change(LONG, entries(2, 2)))
    write(shelf, Change("s1", entries(3, 3)), Change(LONG, entries(3, 3)), creation("s3", 1))
    crash(shelf)
    spoil(path, 1)

    for _ in range(3):
        shelf = opened(path)
        assert found(shelf) == {"s2": 2, "s3": 1}
        assert shelf.damaged.keys() == {"s1", LONG}
        for session in ("s1", LONG):
            with pytest.raises(StoreUnreadable):
                shelf.find(session)
        assert "the log of commits was damaged" in problems(shelf)[0]
        leave(shelf)


@pytest.mark.parametrize("change", [Change("s1", entries(2, 9)), creation("s3", 1)])
def test_a_session_whose_last_commit_was_damaged_is_known_by_what_is_left_of_it(
    path: Path, change: Change
) -> None:
    shelf = opened(path)
    write(shelf, creation("s1", 1))
    write(shelf, change)
    write(shelf, creation("s2", 1))
    crash(shelf)
    flip(path, 1)

    for _ in range(3):
        shelf = opened(path)
        assert shelf.damaged.keys() == {change.session}
        assert "s2" in found(shelf)
        end(shelf)


@pytest.mark.parametrize("leave", [crash, end])
def test_a_session_that_was_set_apart_can_be_deleted_and_created_again(
    path: Path, leave: Callable[[Shelf], None]
) -> None:
    shelf = opened(path)
    write(shelf, creation("s1", 9))
    write(shelf, Change("s1", entries(10, 10)))
    write(shelf, creation("s2", 1))
    crash(shelf)
    flip(path, 1)
    shelf = opened(path)

    assert shelf.remove("s1")
    leave(shelf)
    shelf = opened(path)
    assert found(shelf) == {"s2": 1}
    write(shelf, creation("s1", 1))
    leave(shelf)

    shelf = opened(path)
    assert found(shelf) == {"s1": 1, "s2": 1}
    assert shelf.damaged == {}
    (told,) = problems(shelf)
    (kept,) = path.glob("*.damaged")
    assert told.endswith(kept.name)
    kept.unlink()
    assert problems(shelf) == []
    shelf.close()


def test_what_is_kept_of_a_session_mends_it(path: Path) -> None:
    shelf = opened(path)
    write(shelf, creation("s1", 9))
    end(shelf)
    shelf = opened(path)
    write(shelf, Change("s1", entries(10, 10)))
    write(shelf, Change("s1", entries(11, 11)))
    write(shelf, Change("s1", entries(12, 12)))
    crash(shelf)
    content = segment(path).read_bytes()
    flip(path, 1)
    end(opened(path))
    journal = path / "sessions" / name_of("s1")
    whole, damaged = sorted(
        (path / "sessions").glob("*.commits.torn"), key=lambda file: int(file.name.split(".")[2])
    )

    assert damaged.read_bytes() in content
    damaged.unlink()
    shelf = opened(path)
    assert shelf.damaged.keys() == {"s1"}
    shelf.close()
    first = whole.read_bytes().splitlines(keepends=True)[0]
    whole.write_bytes(first)
    with journal.open("ab") as file:
        file.write(first)

    shelf = opened(path)
    assert found(shelf) == {"s1": 10}
    shelf.close()


def test_a_journal_that_was_cut_short_stays_set_apart_when_the_log_has_forgotten_its_commits(
    path: Path,
) -> None:
    shelf = opened(path)
    write(shelf, creation("s1", 1))
    write(shelf, Change("s1", entries(2, 2)))
    end(shelf)
    shelf = opened(path)
    write(shelf, Change("s1", entries(3, 3)))
    crash(shelf)
    journal = path / "sessions" / name_of("s1")
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])

    for _ in range(3):
        shelf = opened(path)
        assert shelf.damaged.keys() == {"s1"}
        end(shelf)


# ---- removals


def test_a_session_whose_removal_was_damaged_is_set_apart(path: Path) -> None:
    shelf = opened(path)
    for session in ("s1", "s2", "gone"):
        write(shelf, creation(session, 1))
    end(shelf)
    content = (path / "sessions" / name_of("s1")).read_bytes()
    shelf = opened(path)
    shelf.remove("s1")
    shelf.remove("gone")
    write(shelf, Change("s2", entries(2, 2)))
    crash(shelf)
    flip(path, 0, 1)
    (path / "sessions" / name_of("s1")).write_bytes(content)  # its removal was not durable

    for _ in range(2):
        shelf = opened(path)
        assert found(shelf) == {"s2": 2}
        assert shelf.damaged.keys() == {"s1"}
        end(shelf)


@pytest.mark.parametrize("spoil", DAMAGE)
@pytest.mark.parametrize("length", [1, 2])
def test_a_session_that_came_later_under_the_same_id_is_not_mixed_with_the_one_before(
    path: Path, spoil: Damage, length: int
) -> None:
    shelf = opened(path)
    write(shelf, creation("s1", 2), creation("s2", 1))
    shelf.remove("s1")
    write(shelf, Change("s1", entries(1, length), a_head("s1", title="later"), create=True))
    write(shelf, Change("s1", entries(length + 1, length + 1)))
    crash(shelf)
    spoil(path, 1)

    for _ in range(3):
        shelf = opened(path)
        assert found(shelf) == {"s1": length + 1, "s2": 1}
        stored = shelf.standing["s1"].stored()
        assert stored.head.title == "later"
        assert seqs(Reader(shelf).entries("s1", 0, 99, 10**6, None)) == [*range(1, length + 2)]
        end(shelf)


def test_a_journal_that_is_not_the_one_of_the_commits_is_refused(path: Path) -> None:
    shelf = opened(path)
    write(shelf, creation("s1", 1))
    for seq in range(2, 9):
        write(shelf, Change("s1", entries(seq, seq)))
    end(shelf)
    content = (path / "sessions" / name_of("s1")).read_bytes()
    shelf = opened(path)
    shelf.remove("s1")
    write(shelf, creation("s1", 3))
    write(shelf, Change("s1", entries(4, 4)))
    crash(shelf)
    blank(path, 0)
    (path / "sessions" / name_of("s1")).write_bytes(content)  # its removal was not durable

    for _ in range(2):
        shelf = opened(path)
        assert shelf.damaged.keys() == {"s1"}
        end(shelf)


# ---- crashes over it


def damaged_log(path: Path) -> None:
    path.mkdir()
    shelf = opened(path)
    write(shelf, creation("s1", 1), creation("s2", 1), creation("s3", 1))
    end(shelf)
    shelf = opened(path)
    write(shelf, Change("s2", entries(2, 2)))
    write(shelf, Change("s1", entries(2, 2)))
    write(shelf, Change("s3", entries(2, 2)), creation("s4", 1))
    shelf.remove("s4")
    crash(shelf)
    flip(path, 1)


def test_no_crash_while_damage_is_set_apart_lets_it_be_forgotten(tmp_path: Path) -> None:
    """The opening dies at every single step of it in turn."""
    point, died = 0, True
    while died:
        path = tmp_path / f"{point}"
        damaged_log(path)
        died = dies_at(path, point)
        point += 1

        for _ in range(2):
            shelf = opened(path)
            assert found(shelf) == {"s2": 2, "s3": 2}
            assert shelf.damaged.keys() == {"s1"}
            assert "the log of commits was damaged" in problems(shelf)[0]
            end(shelf)

    assert point > 20


def dies_at(path: Path, point: int) -> bool:
    """Whether opening and closing the store has so many steps; it dies then."""
    count = 0

    def before(_: Step) -> None:
        nonlocal count
        count += 1
        if count > point:
            raise StoreBroken("dead")

    try:
        end(opened(path, before))
    except StoreBroken:
        return True
    return False


def test_damage_that_there_is_no_room_to_keep_is_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store"
    damaged_log(path)
    content = segment(path).read_bytes()

    def before(step: Step) -> None:
        if step.what == "write" and (".damaged" in step.name or ".torn" in step.name):
            raise full(step)

    with pytest.raises(StoreFull):
        opened(path, before)

    assert segment(path).read_bytes() == content
