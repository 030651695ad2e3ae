"""The bytes of an HTTP answer: waited for and counted, and unwound wherever one stops.

The library reads through generators within generators. Left half way they are ended by the garbage
collector, at no known time and with a warning each; driven on over a closed connection, they end.
"""

import httpx
import trio

from moorage_daemon.providers.failures import BadAnswer, ProviderFailed, TooSlow


MAX_ANSWER = 64 * 2**20  # bytes of one answer: the longest models come to some 2 MiB
DRAIN = 0.05  # seconds after that in which the connection must come free, to be used again
CLOSING = 2.0  # seconds in which a connection closes


class Body:
    """The bytes of an answer, which is closed and unwound in the end, wherever it stands."""

    def __init__(self, response: httpx.Response) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._response = response
        self._chunks = aiter(response.stream)
        self._total = 0

    async def next(self, deadline: float) -> bytes | None:
        """What comes by the deadline, None at the end; raises `ProviderFailed`."""
        with trio.move_on_at(deadline):
            return await self.flow()
        raise TooSlow("it went silent")

    async def flow(self) -> bytes | None:
        """What comes next, None at the end; raises `ProviderFailed`.

        Only the library's own deadline for each read counts: it is there anyway, and one more for
        each piece of an answer would cost half as much as reading it.
        """
        failure: ProviderFailed
        try:
            return self._counted(await anext(self._chunks, None))
        except httpx.TimeoutException:
            failure = TooSlow("it went silent")
        except httpx.HTTPError as error:
            failure = BadAnswer(f"the answer was cut: {name_of(error)}", may_pass=True)
        raise failure  # not in the except clause: the library's error is not part of it

    def _counted(self, chunk: bytes | None) -> bytes | None:
        if chunk is not None:
            self._total += len(chunk)
            if self._total > MAX_ANSWER:
                raise BadAnswer(f"the answer is longer than {MAX_ANSWER} bytes")
        return chunk

    async def start(self, size: int, deadline: float) -> bytes:
        """The first bytes, as far as they come in time."""
        found = b""
        try:
            while len(found) < size and (chunk := await self.next(deadline)) is not None:
                found += chunk
        except ProviderFailed:
            pass  # what is there has to do
        return found[:size]

    async def drain(self) -> None:
        """Read what is behind the last word, so that the connection serves the next turn too."""
        with trio.move_on_after(DRAIN):
            try:
                while await anext(self._chunks, None) is not None:
                    pass
            except httpx.HTTPError:
                pass  # then it does not

    async def aclose(self) -> None:
        """Let go of the connection; one whose answer was not read to its end closes at once."""
        with trio.move_on_after(CLOSING, shield=True):
            await self._response.aclose()
            await self.drain()  # the library's generators end only when they are driven to it


def name_of(error: httpx.HTTPError) -> str:
    """All that is said of a foreign error: its text could quote anything."""
    return type(error).__name__
