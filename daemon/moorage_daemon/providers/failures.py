"""What can go wrong with a provider, as one tree.

    ProviderFailed          `code` is the stable word of the turn's verdict
    ├── AuthFailed          no key, or one that is refused
    ├── RateLimited         too many requests, or no credit left
    ├── Unavailable         nobody there, or broken on the provider's side
    ├── BadAnswer           an answer that is none, or was cut
    └── TooSlow             a deadline passed

`may_pass` says that the same request may do better in a moment. The text is for the daemon's log:
it holds nothing that the provider wrote but a status and a checked word, and never a key.
"""


class ProviderFailed(Exception):
    """A provider did not answer as it should."""

    code = "provider_unavailable"

    def __init__(
        self, problem: str, *, may_pass: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(problem)
        self.may_pass = may_pass
        self.retry_after = retry_after  # seconds the provider asked to be left alone


class AuthFailed(ProviderFailed):
    """The provider does not know us."""

    code = "provider_auth"


class RateLimited(ProviderFailed):
    """The provider wants us to come back later, or to pay."""

    code = "provider_rate"


class Unavailable(ProviderFailed):
    """The provider cannot be reached, or says that it is broken."""

    code = "provider_unavailable"


class BadAnswer(ProviderFailed):
    """What came is not what was agreed on."""

    code = "provider_protocol"


class TooSlow(ProviderFailed):
    """The provider took longer than it may."""

    code = "provider_timeout"
