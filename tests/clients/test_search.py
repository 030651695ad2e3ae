"""When a daemon is looked for and started, on a clock that the test moves."""

from dataclasses import dataclass, field

from moorage_clients.bridge.launch import LaunchFailed
from moorage_clients.bridge.search import (
    HOLD_OFF,
    LOOK_AGAIN,
    NEVER,
    NONE_IN_TIME,
    PATIENCE,
    RETURN_GRACE,
    Search,
)


@dataclass(eq=False)
class FakeStart:
    """One attempt to start a daemon."""

    machine: "Machine"
    began_at: float
    is_closed: bool = False

    def attempt(self) -> str | None:
        if self.machine.broken is not None:
            raise LaunchFailed(self.machine.broken, ["why:", "  bad key"])
        return self.machine.daemon if self.machine.starts_succeed else None

    def close(self) -> None:
        self.is_closed = True

    def reap(self) -> bool:
        return False


@dataclass(eq=False)
class Machine:
    """Where daemons run or do not: `daemon` is the one that answers."""

    daemon: str | None = None
    broken: str | None = None
    starts_succeed: bool = True
    dials: list[float] = field(default_factory=list[float])
    starts: list[FakeStart] = field(default_factory=list[FakeStart])
    now: float = 100.0

    def dial(self) -> str | None:
        self.dials.append(self.now)
        return self.daemon

    def start(self) -> FakeStart:
        self.starts.append(FakeStart(self, self.now))
        return self.starts[-1]

    @property
    def started_at(self) -> list[float]:
        return [start.began_at for start in self.starts]


@dataclass(eq=False)
class Watch:
    """A search as the relay goes about it, from one moment at which something is due to the next.

    `told` is when those who waited were told, and what.
    """

    machine: Machine
    waits: bool = False
    told: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    search: Search[str] = field(init=False)
    connection: str | None = None

    def __post_init__(self) -> None:
        self.search = Search(self.machine, self.machine.now)

    def until(self, end: float) -> None:
        """Let time pass."""
        while self.machine.now < end:
            self._step()
            due = self.search.patience_ends
            if self.connection is None:
                due = min(due, self.search.look_at)
            self.machine.now = min(end, max(due, self.machine.now + 0.001))
        self._step()

    def _step(self) -> None:
        search, now = self.search, self.machine.now
        if self.connection is None and now >= search.look_at:
            self.connection = search.look(now, is_wanted=self.waits)
        waits = self.waits and self.connection is None
        search.wait(now, is_waiting=waits)
        if now >= search.patience_ends:
            self.told.append((round(now, 2), search.problem))
            self.waits = False
            search.wait(now, is_waiting=False)

    def lose(self, *, had_heard: bool = True) -> None:
        self.connection, self.machine.daemon = None, None
        self.search.lost(self.machine.now, had_heard=had_heard)


def lost() -> Watch:
    """A search for the next daemon, at 200 seconds: the last one has just gone."""
    watch = Watch(Machine(daemon="first"))
    watch.until(200)
    assert watch.connection == "first"
    watch.lose()
    watch.machine.starts.clear()
    watch.machine.dials.clear()
    return watch


def test_first_daemon_is_started_at_once() -> None:
    watch = Watch(Machine(daemon="first"))

    watch.until(100)

    assert watch.connection == "first"
    assert watch.machine.started_at == [100]


def test_first_start_that_fails_is_told_at_once_with_the_reason() -> None:
    watch = Watch(Machine(broken="The daemon did not start:"), waits=True)

    watch.until(101)

    assert watch.told == [(100, "No moorage daemon: The daemon did not start: why: bad key")]


def test_failed_start_is_not_tried_again_before_something_is_wanted_nor_in_a_hurry() -> None:
    machine = Machine(broken="bad")
    watch = Watch(machine, waits=True)
    watch.until(110)
    assert machine.started_at == [100]

    watch.waits = True
    watch.until(110 + 2 * HOLD_OFF)

    assert len(machine.starts) == 2
    assert [at for at, _ in watch.told] == [100, machine.started_at[1]]


def test_lost_daemon_has_a_moment_to_come_back_by_itself() -> None:
    watch = lost()
    watch.waits = True
    watch.until(200 + RETURN_GRACE - 0.3)
    assert watch.machine.starts == []

    watch.machine.daemon = "second"
    watch.until(200 + RETURN_GRACE)

    assert watch.connection == "second"
    assert watch.machine.starts == []
    assert watch.told == []


def test_daemon_is_started_when_none_comes_back_and_something_waits() -> None:
    watch = lost()
    watch.waits = True
    watch.machine.starts_succeed = False

    watch.until(200 + RETURN_GRACE + 0.3)

    [start] = watch.machine.started_at
    assert 200 + RETURN_GRACE <= start <= 200 + RETURN_GRACE + LOOK_AGAIN


def test_daemon_that_nobody_waits_for_is_looked_for_and_not_started() -> None:
    watch = lost()

    watch.until(300)

    assert watch.machine.starts == []
    gaps = [b - a for a, b in zip(watch.machine.dials, watch.machine.dials[1:], strict=False)]
    assert max(gaps) <= LOOK_AGAIN + 0.01
    assert min(gaps[1:]) >= LOOK_AGAIN - 0.01


def test_who_waits_is_told_after_thirty_seconds_and_the_search_goes_on() -> None:
    watch = lost()
    watch.waits = True
    watch.machine.starts_succeed = False
    watch.until(1000)

    assert PATIENCE == 30
    assert watch.told == [(230, NONE_IN_TIME)]
    watch.machine.starts_succeed, watch.machine.daemon = True, "second"
    watch.until(1001)
    assert watch.connection == "second"


def test_daemon_that_comes_in_the_last_moment_is_in_time() -> None:
    watch = lost()
    watch.waits = True
    watch.machine.starts_succeed = False
    watch.until(229.9)

    watch.machine.starts_succeed, watch.machine.daemon = True, "second"
    watch.until(300)

    assert watch.connection == "second"
    assert watch.told == []


def test_failing_starts_are_repeated_for_thirty_seconds_and_then_told_with_the_reason() -> None:
    watch = lost()
    watch.waits = True
    watch.machine.broken = "no space"

    watch.until(300)

    assert [at for at, _ in watch.told] == [230]
    assert "no space" in watch.told[0][1]
    assert 10 < len(watch.machine.starts) <= 30


def test_once_patience_is_over_a_failing_start_is_told_at_once() -> None:
    watch = lost()
    watch.waits = True
    watch.machine.broken = "no space"
    watch.until(300)
    watch.waits = True

    watch.until(310)

    assert len(watch.told) == 2
    assert watch.told[1][0] < 300 + 2 * HOLD_OFF


def test_who_comes_later_has_thirty_seconds_of_their_own() -> None:
    watch = lost()
    watch.machine.starts_succeed = False
    watch.until(250)

    watch.waits = True
    watch.until(400)

    assert watch.told == [(280, NONE_IN_TIME)]


def test_daemon_that_hangs_up_at_once_is_not_pestered() -> None:
    watch = lost()
    watch.waits = True
    for _ in range(5):
        watch.machine.daemon = "deaf"
        watch.until(watch.machine.now + 60)
        assert watch.connection == "deaf"
        before = watch.machine.now
        watch.lose(had_heard=False)
        watch.machine.starts.clear()
        watch.until(before + 2)
        assert watch.machine.starts[0].began_at >= before + HOLD_OFF


def test_search_that_ends_gives_up_its_attempt() -> None:
    machine = Machine(starts_succeed=False)
    watch = Watch(machine)
    watch.until(101)

    watch.search.close()

    assert machine.starts[0].is_closed
    assert watch.search.patience_ends == NEVER
