"""The clock that grants are measured with, on this machine."""

from moorage_daemon.grants.moments import MachineClock, Moment, milliseconds_between


def test_machines_clock_never_runs_backwards_and_knows_its_boot() -> None:
    clock = MachineClock()
    moments = [clock() for _ in range(100)]

    assert moments == sorted(moments, key=lambda moment: moment.ticks)
    assert {moment.boot for moment in moments} == {MachineClock()().boot}
    assert moments[0].boot


def test_time_between_two_boots_is_that_on_the_wall() -> None:
    before, after = Moment("a", 5_000_000, 1000.0), Moment("b", 7, 1003.5)

    assert milliseconds_between(before, after) == 3500
    assert milliseconds_between(after, before) == 0
