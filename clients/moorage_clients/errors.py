"""What can go wrong between a client and a daemon, beside what the daemon refuses.

    ClientError
    ├── CannotConnect       no daemon there, or it turned the connection away
    ├── ConnectionLost      there was one; the session goes on in the daemon
    ├── TooLarge            no daemon takes so much in one message; nothing was sent
    ├── KeepsNoSecrets      that daemon would write a secret down; nothing was sent
    └── OutOfOrder          the other side broke its word: a log with a gap or a repetition

A refusal is an `RpcError` of `moorage_protocol.errors`, the same tree that the daemon raises.
"""


class ClientError(Exception):
    """Base of what this library raises on its own account."""


class CannotConnect(ClientError):
    """No conversation with the daemon at `address` came about; `problem` is one line."""

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(address, problem)
        self.address = address
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.address}: {self.problem}"


class ConnectionLost(ClientError):
    """The conversation is over and this request or iteration with it. Turns run on: re-attach."""

    def __init__(self, problem: str = "the connection is closed") -> None:
        super().__init__(problem)
        self.problem = problem


class TooLarge(ClientError):
    """A message of `size` bytes was not sent: a daemon skips whatever is longer than `limit`."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"a message of {self.size} bytes is too large, {self.limit} are the most"


class KeepsNoSecrets(ClientError):
    """A prompt with a secret was not sent: the daemon does not know the mark, and would keep it."""

    def __str__(self) -> str:
        return "the daemon is of an older version and would write the secret down"


class OutOfOrder(ClientError):
    """A session's messages were not numbered without gaps: `expected` should have come."""

    def __init__(self, session_id: str, expected: int, received: int) -> None:
        super().__init__(session_id, expected, received)
        self.session_id = session_id
        self.expected = expected
        self.received = received

    def __str__(self) -> str:
        return f"session {self.session_id}: entry {self.received} came instead of {self.expected}"
