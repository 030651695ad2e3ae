"""When a request is tried again.

Only failures that say they may pass, only a few times, and only as long as the settings allow. A
provider that names its time is obeyed, or not asked again at all if that is too late. Whoever has
already heard a piece of an answer does not ask here: it would be told twice.
"""

import random
from dataclasses import dataclass, field

import trio

from moorage_daemon.providers.failures import ProviderFailed


MAX_TRIES = 4
FIRST_WAIT = 0.5  # seconds; doubled each time
JITTER = 0.25  # of the wait, so that sessions which failed together do not return together


@dataclass
class Patience:
    """How often one request was tried, and until when it may be (`seconds` from now)."""

    seconds: float
    tries: int = 0
    _began: float = field(default_factory=trio.current_time)

    def wait_after(self, failure: ProviderFailed) -> float | None:
        """Seconds to wait before the next try, None if there is none."""
        self.tries += 1
        if not failure.may_pass or self.tries >= MAX_TRIES:
            return None
        wait = FIRST_WAIT * 2 ** (self.tries - 1) * (1 + JITTER * random.random())
        wait = max(wait, failure.retry_after or 0.0)
        elapsed = trio.current_time() - self._began
        return wait if elapsed + wait <= self.seconds else None
