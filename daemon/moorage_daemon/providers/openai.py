"""A provider that speaks OpenAI's chat completions, over HTTP.

One client and its connections serve all turns for the daemon's life; a turn that ends early closes
its connection, so the provider stops working for nobody. Every wait has a deadline, every amount
a bound, and no exception of the HTTP library, which would carry the request, leaves this module.

The environment has no say in where requests go: whoever starts the daemon, an editor say, may have
proxies there, or in a netrc file passwords, that nobody meant for a model. `proxy` of the settings
says it openly. Redirects are not followed: a key goes where its user's settings say.
"""

import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
import trio

from moorage_daemon.provider_settings import BadProvider, ProviderSettings
from moorage_daemon.providers.body import CLOSING, Body, name_of
from moorage_daemon.providers.chat import (
    Reading,
    encode_request,
    failure_in_answer,
    failure_of_status,
    is_error,
)
from moorage_daemon.providers.events import Events, TooLarge
from moorage_daemon.providers.failures import BadAnswer, ProviderFailed, TooSlow, Unavailable
from moorage_daemon.providers.keys import read_key
from moorage_daemon.providers.port import Piece, Request
from moorage_protocol import __version__


MAX_STREAMS = 100  # answers at once; further turns wait for one to end
IDLE_CONNECTIONS = 10  # kept for the next turn
IDLE_SECONDS = 60.0  # that they are kept; servers close them after 5 to 75 s
MAX_ERROR = 16 * 2**10  # bytes of an error that are read
LINGER = 2.0  # seconds after the last word in which usage and the end may still come

_OK = 200
_EVENT_STREAM = "text/event-stream"
_JSON = "application/json"


@dataclass(eq=False)
class OpenAIProvider:
    """Speaks to one base URL; see `open_openai`."""

    settings: ProviderSettings
    _client: httpx.AsyncClient
    _slots: trio.Semaphore
    _asks_usage: bool = True
    _new_limits: set[str] = field(default_factory=set[str])  # models that know no other

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[AsyncIterator[Piece]]:
        """Ask a model; see `Provider.stream`."""
        async with self._slots:
            deadline = trio.current_time() + self.settings.first_token_seconds
            body = await self._ask(request, deadline)
            try:
                async with aclosing(self._pieces(body, deadline)) as pieces:
                    yield pieces
            finally:
                await body.aclose()

    # ---- asking

    async def _ask(self, request: Request, deadline: float) -> Body:
        """The answer, if it is a stream of events."""
        key = await self._key(deadline)
        while True:
            asks_usage, has_new_limit = self._asks_usage, request.model in self._new_limits
            content = encode_request(request, asks_usage=asks_usage, has_new_limit=has_new_limit)
            response = await self._post(content, key, deadline)
            body = Body(response)
            if response.status_code == _OK and _is_stream(response):
                return body
            try:
                found = await body.start(MAX_ERROR, min(deadline, trio.current_time() + LINGER))
            finally:
                await body.aclose()
            if not has_new_limit and request.max_tokens and _is_about_limit(response, found):
                self._new_limits.add(request.model)
            elif asks_usage and _is_about_usage(response, found):
                self._asks_usage = False  # it does not know that, and says so: ask without
            else:
                raise _refusal(response, found)

    async def _key(self, deadline: float) -> str | None:
        with trio.move_on_at(deadline):
            return await read_key(self.settings)
        raise TooSlow("its key cannot be read in time")

    async def _post(self, content: bytes, key: str | None, deadline: float) -> httpx.Response:
        request = self._client.build_request(
            "POST", f"{self.settings.base_url}/chat/completions", content=content
        )
        request.extensions["trace"] = _Connecting().trace
        if key is not None:
            request.headers["Authorization"] = f"Bearer {key}"
        failure: ProviderFailed = TooSlow("it did not answer")
        with trio.move_on_at(deadline):
            try:
                return await self._client.send(request, stream=True)
            except httpx.HTTPError as error:
                failure = _failure_to_connect(error)
            finally:
                request.headers.pop("Authorization", None)  # sent: the response needs no key
        raise failure

    # ---- listening

    async def _pieces(self, body: Body, deadline: float) -> AsyncGenerator[Piece]:
        """The first piece has to come by the deadline, each further one has its own."""
        reading, events = Reading(), Events()
        has_begun = False
        while not reading.is_over:
            chunk = await _heard(body, reading, deadline, has_begun=has_begun)
            found = _split(events, chunk, reading)
            for event in found:
                for piece in reading.take(event):
                    has_begun = True
                    yield piece
            if chunk is None:
                break
            if has_begun and found:
                deadline = trio.current_time() + self.settings.silence_seconds
        yield reading.finish()
        await body.drain()


class _Connecting:
    """A connection on its way. The library loses one whose encryption is cancelled half way."""

    stream: trio.abc.AsyncResource | None = None

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of what the library does (its "trace" extension)."""
        if event.endswith("connect_tcp.complete"):
            self.stream = info["return_value"]
        elif event.endswith("start_tls.failed") and self.stream is not None:
            with trio.move_on_after(CLOSING, shield=True):
                await self.stream.aclose()


async def _heard(body: Body, reading: Reading, deadline: float, *, has_begun: bool) -> bytes | None:
    """What comes next; once the model has stopped, whatever goes wrong is merely the end."""
    if reading.ending is not None:
        try:
            return await body.next(min(deadline, trio.current_time() + LINGER))
        except ProviderFailed:
            return None
    if not has_begun:
        return await body.next(deadline)
    chunk = await body.flow()
    if trio.current_time() > deadline:
        raise TooSlow("it says no more, and only keeps the connection alive")
    return chunk


def _split(events: Events, chunk: bytes | None, reading: Reading) -> list[bytes]:
    if chunk is None:
        return events.flush() if reading.ending is None else []
    try:
        return events.feed(chunk)
    except TooLarge:
        raise BadAnswer("an event does not end") from None


# ---- what an answer is


def _is_stream(response: httpx.Response) -> bool:
    """Whether it is what was asked for; compressed it could be of any size."""
    plain = response.headers.get("content-encoding", "identity").lower() == "identity"
    return plain and _media_type(response) == _EVENT_STREAM


def _media_type(response: httpx.Response) -> str:
    found: str = response.headers.get("content-type", "")
    return found.partition(";")[0].strip().lower()


def _is_about_usage(response: httpx.Response, body: bytes) -> bool:
    """Whether it refuses the request for what only some servers know."""
    return response.status_code in (400, 422) and b"stream_options" in body


def _is_about_limit(response: httpx.Response, body: bytes) -> bool:
    """Whether it refuses the request for the old name of how long an answer may be."""
    return response.status_code in (400, 422) and b"max_completion_tokens" in body


def _refusal(response: httpx.Response, body: bytes) -> ProviderFailed:
    if response.status_code != _OK:
        return failure_of_status(response.status_code, response.headers, body)
    if _media_type(response) == _JSON and is_error(body):
        return failure_in_answer(body)
    return BadAnswer("its answer is not a stream of events")


def _failure_to_connect(error: httpx.HTTPError) -> ProviderFailed:
    match error:
        case httpx.TimeoutException():
            return TooSlow("it does not take a connection")
        case httpx.NetworkError() | httpx.ProxyError():
            return Unavailable(f"it cannot be reached: {name_of(error)}", may_pass=True)
        case _:
            return BadAnswer(f"it does not speak HTTP: {name_of(error)}", may_pass=True)


# ---- opening


@asynccontextmanager
async def open_openai(name: str, settings: ProviderSettings) -> AsyncGenerator[OpenAIProvider]:
    """A provider and its connections; raises `BadProvider` for an address that is none."""
    for library in ("httpx", "httpcore"):  # they write down what servers send, even our own key
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        client = _client(settings)
        httpx.URL(settings.base_url)
    except (httpx.InvalidURL, ValueError):
        raise BadProvider(f"providers.{name}: its address is none that can be used") from None
    try:
        yield OpenAIProvider(settings, client, trio.Semaphore(MAX_STREAMS))
    finally:
        with trio.move_on_after(CLOSING, shield=True):
            await client.aclose()


def _client(settings: ProviderSettings) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        headers={
            "User-Agent": f"moorage/{__version__}",
            "Accept": _EVENT_STREAM,
            "Accept-Encoding": "identity",  # what is unpacked here has no bound
            "Content-Type": _JSON,
        },
        # cookies would tie the turns of different sessions together
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        verify=_trust(settings),
        trust_env=False,
        proxy=settings.proxy,
        follow_redirects=False,
        timeout=httpx.Timeout(
            None, connect=settings.connect_seconds, read=settings.silence_seconds
        ),
        limits=httpx.Limits(
            max_connections=MAX_STREAMS,
            max_keepalive_connections=IDLE_CONNECTIONS,
            keepalive_expiry=IDLE_SECONDS,
        ),
    )


def _trust(settings: ProviderSettings) -> ssl.SSLContext:
    """Whom to believe. Where nothing is encrypted nobody: reading all authorities takes 20 ms."""
    addresses = (settings.base_url, settings.proxy or "")
    if not any(address.startswith("https:") for address in addresses):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()  # the system's too: a company adds its own there
    return context
