"""Which blobs an entry names: what keeps them from being collected.

The rule is the same for every kind of entry, also for those that this version does not know: a
body names a blob by its SHA-256 in lower-case hexadecimal, as the value of a key `sha256`, however
deep, or behind `sha256/` in an address. Text that merely looks so keeps a blob too, and no harm
is done.
"""

import re

from moorage_daemon.store.model import Entry


_MARK = b"sha256"
_NAMED = re.compile(rb'sha256(?:"\s*:\s*"|\\?/)([0-9a-f]{64})(?![0-9a-f])')


def blobs_named(entry: Entry) -> frozenset[str]:
    """The digests of the blobs that an entry names."""
    return digests_in(entry.body)


def digests_in(text: bytes) -> frozenset[str]:
    """The digests that JSON text names."""
    if _MARK not in text:
        return frozenset()
    return frozenset(match.decode() for match in _NAMED.findall(text))
