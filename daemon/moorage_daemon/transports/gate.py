"""Who may open a WebSocket, decided before the upgrade from nothing but the request's head.

Three questions in this order: is it this daemon that was meant (Host, against DNS rebinding),
may that page talk to it (Origin, against cross-site use), and does it have exactly one good
credential. A refusal says nothing more than its status, and is the same for absent and wrong.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from websockets.datastructures import Headers

from moorage_daemon.identity import Principal


PATH = "/acp"
SUBPROTOCOL = "moorage.v1"  # what a browser asks for beside its credential
_BEARER = "moorage.bearer."  # and how the credential stands there: a browser sets no headers
_SCHEME = "bearer"


@dataclass(frozen=True)
class Gate:
    """The rules of one listener; `port` is where it listens.

    `authenticate` gives the principal of a token, None for a wrong one.
    """

    port: int
    authenticate: Callable[[str], Principal | None] = field(repr=False)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()

    def check(self, path: str, headers: Headers) -> Principal | HTTPStatus:
        """The principal behind a request, or the status to refuse it with."""
        if not self._is_meant(headers.get_all("Host")):
            return HTTPStatus.MISDIRECTED_REQUEST
        origins = headers.get_all("Origin")
        if origins and (len(origins) > 1 or origins[0] not in self.allowed_origins):
            return HTTPStatus.FORBIDDEN
        if path != PATH:
            return HTTPStatus.NOT_FOUND
        tokens = _tokens(headers, from_browser=bool(origins))
        principal = self.authenticate(tokens[0]) if len(tokens) == 1 else None
        return principal or HTTPStatus.UNAUTHORIZED

    def _is_meant(self, hosts: list[str]) -> bool:
        own = {f"127.0.0.1:{self.port}", f"localhost:{self.port}", f"[::1]:{self.port}"}
        return len(hosts) == 1 and (hosts[0] in own or hosts[0] in self.allowed_hosts)


def _tokens(headers: Headers, *, from_browser: bool) -> list[str]:
    """Every credential the request shows, wherever; more than one is as bad as none."""
    found: list[str] = []
    for line in headers.get_all("Authorization"):
        scheme, _, token = line.partition(" ")
        found.append(token.strip() if scheme.lower() == _SCHEME else "")
    for line in headers.get_all("Sec-WebSocket-Protocol"):
        offered = [name.strip() for name in line.split(",")]
        carried = [name[len(_BEARER) :] for name in offered if name.startswith(_BEARER)]
        found += carried if from_browser else ["" for _ in carried]
    return found


def token_check(token: str, principal: Principal) -> Callable[[str], Principal | None]:
    """A check against one token, in a time that does not depend on what is wrong."""
    digest = hashlib.sha256(token.encode()).digest()

    def authenticate(given: str) -> Principal | None:
        same = hmac.compare_digest(hashlib.sha256(given.encode()).digest(), digest)
        return principal if same else None

    return authenticate
