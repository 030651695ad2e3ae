"""The gate over all combinations of what a request can show; nobody else gets in, nobody less."""

from dataclasses import dataclass
from http import HTTPStatus
from itertools import product

import pytest
from websockets.datastructures import Headers

from moorage_daemon.identity import LOCAL, Principal
from moorage_daemon.transports.gate import Gate, token_check
from moorage_protocol.moorage import Role


PORT = 7777
TOKEN = "k3w-Tn0p_9aZ" * 4
OWNER = Principal(LOCAL, Role.OPERATOR)
PAGE = "https://good.example"

GATE = Gate(
    port=PORT,
    authenticate=token_check(TOKEN, OWNER),
    allowed_hosts=("moorage.example:8443",),
    allowed_origins=(PAGE,),
)


@dataclass(frozen=True)
class Case:
    """Header lines, and whether they are right; `in_browser` for a request of an allowed page."""

    lines: tuple[tuple[str, str], ...]
    good: bool = False
    in_browser: bool | None = None

    @property
    def good_in_browser(self) -> bool:
        return self.good if self.in_browser is None else self.in_browser


def case(name: str, *values: str, good: bool = False) -> Case:
    return Case(tuple((name, value) for value in values), good)


HOSTS = [
    case("Host", f"127.0.0.1:{PORT}", good=True),
    case("Host", f"localhost:{PORT}", good=True),
    case("Host", f"[::1]:{PORT}", good=True),
    case("Host", "moorage.example:8443", good=True),
    *[
        case("Host", host)
        for host in (
            "127.0.0.1", "localhost", "[::1]", "127.0.0.1:7778", "127.0.0.1:77777",
            "moorage.example", f"moorage.example:{PORT}", f"evil.example:{PORT}",
            f"127.evil.example:{PORT}", f"localhost.evil.example:{PORT}", f"localhost.:{PORT}",
            f"LOCALHOST:{PORT}",
            f"0.0.0.0:{PORT}", f"127.1:{PORT}", f"2130706433:{PORT}", f"::1:{PORT}", "",
            f"127.0.0.1:{PORT} ", f"user@127.0.0.1:{PORT}", f"127.0.0.1:{PORT},evil.example",
        )
    ],
    case("Host"),
    case("Host", f"127.0.0.1:{PORT}", "evil.example"),
    case("Host", f"127.0.0.1:{PORT}", f"127.0.0.1:{PORT}"),
]  # fmt: skip

NO_PAGE = case("Origin", good=True)
GOOD_PAGE = case("Origin", PAGE, good=True)
ORIGINS = [
    NO_PAGE,
    GOOD_PAGE,
    *[
        case("Origin", origin)
        for origin in (
            "null", "", f"http://localhost:{PORT}", f"http://127.0.0.1:{PORT}", "https://evil.example",
            "http://good.example", "https://good.example:443", "https://good.example/",
            "https://good.example.evil.example", "HTTPS://GOOD.EXAMPLE", "file://",
            "vscode-webview://x", "chrome-extension://x", f"{PAGE} https://evil.example",
        )
    ],
    case("Origin", PAGE, PAGE),
    case("Origin", PAGE, "https://evil.example"),
]  # fmt: skip


def offer(*lines: str, in_browser: bool) -> Case:
    """Credentials among the offered subprotocols, which count for an allowed page only."""
    return Case(tuple(("Sec-WebSocket-Protocol", line) for line in lines), False, in_browser)


CREDENTIALS = [
    case("Authorization", f"Bearer {TOKEN}", good=True),
    case("Authorization", f"bearer {TOKEN}", good=True),
    case("Authorization", f"BEARER   {TOKEN}", good=True),
    *[
        case("Authorization", value)
        for value in (
            "Bearer wrong", "Bearer", "Bearer ", "", TOKEN, f"Basic {TOKEN}", f"Bearer:{TOKEN}",
            f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Bearer {TOKEN.lower()}",
            f"Bearer {TOKEN} {TOKEN}", f"Bearer {TOKEN},", f"Bearer ÿ{TOKEN}", f"Bearer\t{TOKEN}",
        )
    ],
    case("Authorization"),
    case("Authorization", f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
    case("Authorization", f"Bearer {TOKEN}", "Bearer wrong"),
    case("Authorization", "", f"Bearer {TOKEN}"),
    case("Cookie", f"token={TOKEN}"),
    case("X-Forwarded-Authorization", f"Bearer {TOKEN}"),
    case("Proxy-Authorization", f"Bearer {TOKEN}"),
    offer(f"moorage.v1, moorage.bearer.{TOKEN}", in_browser=True),
    offer(f"moorage.bearer.{TOKEN},moorage.v1", in_browser=True),
    offer("moorage.v1", f"moorage.bearer.{TOKEN}", in_browser=True),
    offer(f"moorage.bearer.{TOKEN}", in_browser=True),
    offer("moorage.v1", in_browser=False),
    offer("moorage.v1, moorage.bearer.", in_browser=False),
    offer("moorage.v1, moorage.bearer.wrong", in_browser=False),
    offer(f"moorage.v1, {TOKEN}", in_browser=False),
    offer(f"moorage.v1, MOORAGE.BEARER.{TOKEN}", in_browser=False),
    offer(f"moorage.bearer.{TOKEN}, moorage.bearer.{TOKEN}", in_browser=False),
    offer(f"moorage.bearer.{TOKEN}", "moorage.bearer.wrong", in_browser=False),
    Case((
        ("Authorization", f"Bearer {TOKEN}"),
        ("Sec-WebSocket-Protocol", f"moorage.v1, moorage.bearer.{TOKEN}"),
    )),
    Case((("Authorization", f"Bearer {TOKEN}"), ("Sec-WebSocket-Protocol", "moorage.v1")), True),
]  # fmt: skip

PATHS = [
    "/acp", "/", "", "/acp/", "//acp", "/ACP", "/./acp", "/acp/../acp", "/%61cp", "/acp#x",
    f"/acp?token={TOKEN}", f"http://127.0.0.1:{PORT}/acp", "*", f"/{TOKEN}",
]  # fmt: skip


def headers_of(*cases: Case) -> Headers:
    return Headers([line for case in cases for line in case.lines])


def expected(host: Case, origin: Case, path: str, credential: Case) -> Principal | HTTPStatus:
    if not host.good:
        return HTTPStatus.MISDIRECTED_REQUEST
    if not origin.good:
        return HTTPStatus.FORBIDDEN
    if path != "/acp":
        return HTTPStatus.NOT_FOUND
    from_page = origin is GOOD_PAGE
    good = credential.good_in_browser if from_page else credential.good
    return OWNER if good else HTTPStatus.UNAUTHORIZED


def test_exactly_the_right_requests_are_let_in() -> None:
    tried = list(product(HOSTS, ORIGINS, PATHS, CREDENTIALS))

    wrong = [
        combination
        for combination in tried
        if GATE.check(combination[2], headers_of(*combination[:2], combination[3]))
        != expected(*combination)
    ]

    assert wrong == []
    assert len(tried) > 100_000
    let_in = [combination for combination in tried if expected(*combination) is OWNER]
    assert len(let_in) == 4 * (4 + 8)  # hosts x (headers alone, and for a page its offers too)


@pytest.mark.parametrize("name", ["host", "HOST", "origin", "ORIGIN", "authorization"])
def test_header_names_are_told_apart_by_nothing_but_their_letters(name: str) -> None:
    good = headers_of(HOSTS[0], GOOD_PAGE, CREDENTIALS[0])
    good[name] = "evil.example"  # adds a line

    assert isinstance(GATE.check("/acp", good), HTTPStatus)


def test_gate_of_another_port_takes_only_its_own() -> None:
    other = Gate(port=1, authenticate=token_check(TOKEN, OWNER))
    headers = headers_of(HOSTS[0], CREDENTIALS[0])

    assert other.check("/acp", headers) is HTTPStatus.MISDIRECTED_REQUEST


def test_without_settings_no_page_is_let_in() -> None:
    plain = Gate(port=PORT, authenticate=token_check(TOKEN, OWNER))
    headers = headers_of(HOSTS[0], GOOD_PAGE, CREDENTIALS[0])

    assert plain.check("/acp", headers) is HTTPStatus.FORBIDDEN


def test_gate_does_not_show_what_it_checks_against() -> None:
    assert TOKEN not in repr(GATE)
