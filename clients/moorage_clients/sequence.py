"""The numbers of one session's messages on one connection: contiguous, or it is said at once."""

from dataclasses import dataclass

from moorage_clients.errors import OutOfOrder


@dataclass
class Sequence:
    """Where a session's log stands on this connection.

    `expected` is the number that has to come next; None until the first one came, as a prompt, a
    new or a resumed session attaches at a place that only the daemon knows.
    """

    session_id: str
    expected: int | None = None
    replays: int = 0  # loads that are not answered: the log may begin again
    may_begin_earlier: bool = False  # a prompt may have attached before us, further back

    def admit(self, seq: int) -> None:
        """Take note of a numbered message; raises `OutOfOrder` and notes nothing if it is wrong."""
        is_next = self.expected is None or seq == self.expected
        is_earlier = self.expected is not None and seq < self.expected
        if not (is_next or (is_earlier and (self.replays > 0 or self.may_begin_earlier))):
            assert self.expected is not None
            raise OutOfOrder(self.session_id, self.expected, seq)
        self.expected, self.may_begin_earlier = seq + 1, False

    def attached(self, after: int) -> None:
        """An attach was answered: what follows begins behind `after`, or where it stood before.

        On a connection that was attached already the place moves back, never forward; as long as
        nothing came, only the daemon knows where that is.
        """
        start = after + 1
        self.may_begin_earlier |= self.expected is None
        self.expected = start if self.expected is None else min(self.expected, start)
