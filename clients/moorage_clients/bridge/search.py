"""When to look for a daemon, when to start one, and when those who wait for it are told.

A daemon that goes mostly comes back by itself, as one that is restarted does. So for a moment it
is only looked for, and then one is started, but only if something waits for it: what was stopped
on purpose stays stopped until the editor asks for something. Whoever waits is told after
`PATIENCE` that there is none, or at once where a first start fails; the search goes on for ever.

All times are handed in, in seconds of a clock that never goes back.
"""

from typing import Generic, Protocol, TypeVar

from moorage_clients.bridge.launch import PAUSE, LaunchFailed


C = TypeVar("C", covariant=True)
D = TypeVar("D")

PATIENCE = 30.0  # seconds that a request waits for a daemon
RETURN_GRACE = 1.0  # seconds a lost daemon has to come back by itself before one is started
LOOK_AGAIN = 0.25  # seconds between looks for a daemon that nobody waits for
HOLD_OFF = 1.0  # seconds after a failed start, or a daemon that hung up before it said anything

NEVER = float("inf")
NONE_IN_TIME = "No moorage daemon answers. The session is kept: try again."


class Starting(Protocol[C]):
    """An attempt to have a daemon, starting one where there is none."""

    def attempt(self) -> C | None:
        """Look once; raises `LaunchFailed`."""
        ...

    def close(self) -> None:
        """End it."""
        ...

    def reap(self) -> bool:
        """Take note of the end of the daemon that it started; whether one still runs."""
        ...


class Finder(Protocol[C]):
    """Where daemons are found."""

    def dial(self) -> C | None:
        """Connect to one that runs; None where none answers."""
        ...

    def start(self) -> Starting[C]:
        """Begin an attempt."""
        ...


class Search(Generic[D]):
    """The search for a daemon: for the first one, and whenever one was lost, for the next."""

    def __init__(self, finder: Finder[D], now: float) -> None:
        self._finder = finder
        self.look_at = now
        self._attempt: Starting[D] | None = finder.start()  # the first daemon is not waited for
        self._children: list[Starting[D]] = []  # whose daemons we started
        self._lost_at = now - RETURN_GRACE
        self._patient_until = now  # a first start that fails is told at once
        self._waiting_since = NEVER
        self._problem = NONE_IN_TIME

    def look(self, now: float, *, is_wanted: bool) -> D | None:
        """Look for a daemon, when `look_at` has come."""
        self._children = [child for child in self._children if child.reap()]
        if self._attempt is None and is_wanted and now >= self._lost_at + RETURN_GRACE:
            self._attempt = self._finder.start()
        if self._attempt is None:
            self.look_at = now + LOOK_AGAIN
            return self._finder.dial()
        return self._go_on(self._attempt, now)

    def _go_on(self, attempt: Starting[D], now: float) -> D | None:
        self.look_at = now + PAUSE
        try:
            connection = attempt.attempt()
        except LaunchFailed as error:
            self._attempt = None
            self.look_at = now + HOLD_OFF
            self._problem = f"No moorage daemon: {' '.join(str(error).split())}"
            if now >= self._patient_until:
                self._waiting_since = -NEVER
            return None
        if connection is not None:
            self._attempt = None
            self._children.append(attempt)
        return connection

    def lost(self, now: float, *, had_heard: bool) -> None:
        """The connection is gone; `had_heard`: a daemon had said something over it."""
        self._lost_at = now
        self._patient_until = now + PATIENCE
        self._problem = NONE_IN_TIME
        self.look_at = now + (PAUSE if had_heard else HOLD_OFF)

    # ---- who waits

    def wait(self, now: float, *, is_waiting: bool) -> None:
        """Take note whether somebody waits for a daemon."""
        if not is_waiting:
            self._waiting_since = NEVER
        elif self._waiting_since == NEVER:
            self._waiting_since = now

    @property
    def patience_ends(self) -> float:
        """When those who wait are to be told that there is no daemon."""
        return self._waiting_since + PATIENCE

    @property
    def problem(self) -> str:
        """Why there is none, in one line for them."""
        return self._problem

    def close(self) -> None:
        """Search no longer."""
        if self._attempt is not None:
            self._attempt.close()
