"""Imports point one way; this file is the only statement of that rule.

The check reads source text, so an import under `TYPE_CHECKING` or inside a function
counts like any other: a name that is only needed for a type still ties two modules.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent

# What a package may import beside itself and the standard library.
ALLOWED = {
    "moorage_protocol": {"msgspec"},
    "moorage_daemon": {
        "moorage_protocol",
        "apsw",
        "httpx",
        "jsonrpcserver",
        "msgspec",
        "oslash",
        "platformdirs",
        "trio",
        "websockets",
    },
    "moorage_clients": {
        "moorage_protocol",
        "argcomplete",
        "msgspec",
        "platformdirs",
        "trio",
        "websockets",
    },
}

# What would make the wire more than bytes in, structs out.
NOT_ON_THE_WIRE = {"asyncio", "select", "selectors", "socket", "ssl", "subprocess"}

# Programs that start in milliseconds: the standard library and what is named here.
LEAN = {
    "moorage_protocol.rendezvous": set[str](),
    "moorage_clients.bridge": {"moorage_protocol.rendezvous", "moorage_clients.identity"},
    "moorage_clients.identity": set[str](),
}

# A library that only one place knows can be replaced in one place.
HOMES = {
    "apsw": "moorage_daemon.store",
    "argcomplete": "moorage_clients.cli.offering",
    "httpx": "moorage_daemon.providers",
    "jsonrpcserver": "moorage_daemon.dispatch",
    "oslash": "moorage_daemon.dispatch",  # the results that jsonrpcserver deals in
}

# Inside the daemon a module (or package) may import only from later rows.
LAYERS = (
    ("__main__",),
    ("program",),
    ("checkup",),
    ("app",),
    ("transports",),
    ("connection",),
    ("dispatch",),
    ("handlers",),
    ("housekeeping",),
    ("transfer",),
    ("sessions",),
    ("session",),
    ("ending", "surroundings"),
    ("admission", "conductor"),
    ("turn",),
    ("record",),
    ("agents",),
    ("providers", "tools"),
    ("ledger",),
    ("log",),
    ("settings_report", "store"),
    ("settings", "statedir", "identity", "processes"),
    ("grant_settings", "retention"),
    ("grants", "provider_settings", "secret_file", "setting_tables"),
    ("log_lines",),
    ("scrubbing",),
)
RANK = {module: rank for rank, row in enumerate(LAYERS) for module in row}


def module_name(path: Path) -> str:
    """Return the dotted name of a source file; `pkg.__init__` for a package's own."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])


SOURCES = {
    module_name(path): path
    for folder in ("protocol", "daemon", "clients")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def imported(source: str) -> Iterator[str]:
    """Yield dotted names; a relative import yields one that starts with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def lies_in(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def faults(module: str, name: str) -> Iterator[str]:
    """Yield why `module` may not import `name`; nothing if it may."""
    package, inner = module.split(".")[:2]
    target, *subs = name.split(".")
    if target == "":
        yield "imports are absolute"
    elif inner == "__init__":
        yield "whoever needs one module of a package pays for its __init__ too"
    for lean, places in LEAN.items():
        known = lies_in(name, places | {lean}) or target in sys.stdlib_module_names
        if lies_in(module, {lean}) and not known:
            yield f"{lean} starts in milliseconds"
    if package == "moorage_protocol" and target in NOT_ON_THE_WIRE:
        yield "the wire is bytes in, structs out"
    if target in HOMES and not lies_in(module, {HOMES[target]}):
        yield f"only {HOMES[target]} knows {target}"
    if target == package:
        if package == "moorage_daemon":
            yield from layer_faults(inner, subs)
    elif target and target not in ALLOWED[package] | sys.stdlib_module_names:
        yield f"{package} does not know {target}"


def layer_faults(inner: str, subs: list[str]) -> Iterator[str]:
    layer = subs[0] if subs else ""
    if inner not in RANK or layer not in RANK:
        yield f"{inner} or {layer or 'the whole package'} stands in no layer"
    elif layer != inner and RANK[layer] <= RANK[inner]:
        yield f"{layer} does not lie below {inner}"


def violations(module: str, source: str) -> list[str]:
    return [
        f"{module} imports {name}: {fault}"
        for name in imported(source)
        for fault in faults(module, name)
    ]


@pytest.mark.parametrize("module", SOURCES)
def test_module_imports_only_what_lies_below_it(module: str) -> None:
    assert violations(module, SOURCES[module].read_text(encoding="utf-8")) == []


def test_every_daemon_module_has_a_layer() -> None:
    modules = {name.split(".")[1] for name in SOURCES if "moorage_daemon" in name}

    assert modules - {"__init__"} <= set(RANK)


def test_no_init_stands_directly_under_a_top_folder() -> None:
    for folder in ("protocol", "daemon", "clients"):
        assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("moorage_protocol.frames", "import trio"),
        ("moorage_protocol.frames", "import socket"),
        ("moorage_protocol.frames", "import moorage_daemon.store"),
        ("moorage_protocol.frames", "from moorage_clients import cli"),
        ("moorage_protocol.rendezvous", "import msgspec"),
        ("moorage_protocol.rendezvous", "from moorage_protocol import errors"),
        ("moorage_protocol.__init__", "from moorage_protocol.errors import RpcError"),
        ("moorage_clients.client", "from moorage_daemon.statedir import StateDir"),
        ("moorage_clients.client", "import jsonrpcserver"),
        ("moorage_clients.cli.arguments", "import argcomplete"),
        ("moorage_clients.bridge", "import trio"),
        ("moorage_clients.bridge", "import moorage_clients.client"),
        ("moorage_clients.bridge", "from moorage_protocol import jsonrpc"),
        ("moorage_clients.identity", "import msgspec"),
        ("moorage_daemon.app", "import moorage_clients"),
        ("moorage_daemon.app", "import numpy"),
        ("moorage_daemon.app", "import jsonrpcserver.dispatcher"),
        ("moorage_daemon.session", "import apsw"),
        ("moorage_daemon.agents.native", "import httpx"),
        ("moorage_daemon.providers.port", "from moorage_daemon.agents.port import Stage"),
        ("moorage_daemon.providers.port", "from moorage_daemon.tools.port import Tool"),
        ("moorage_daemon.session", "from moorage_daemon import sessions"),
        ("moorage_daemon.session", "import moorage_daemon"),
        ("moorage_daemon.session", "from . import turn"),
        ("moorage_daemon.session", "from moorage_daemon.unheard_of import x"),
        ("moorage_daemon.session", "def f():\n    import moorage_daemon.dispatch"),
        ("moorage_daemon.session", "if TYPE_CHECKING:\n    import moorage_daemon.app"),
        ("moorage_daemon.store.sqlite", "from moorage_daemon.log import tail"),
        ("moorage_daemon.settings", "from moorage_daemon.statedir import StateDir"),
        ("moorage_daemon.unheard_of", "from moorage_daemon.settings import Settings"),
        ("moorage_daemon.__init__", "from moorage_daemon.app import open_app"),
    ],
)
def test_planted_violation_is_found(module: str, source: str) -> None:
    assert violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("moorage_protocol.frames", "import msgspec, enum"),
        ("moorage_protocol.frames", "from moorage_protocol.errors import ParseError"),
        ("moorage_protocol.rendezvous", "import os, json, fcntl"),
        ("moorage_clients.client", "import trio, websockets.trio.client"),
        ("moorage_clients.client", "from moorage_clients.links import Link"),
        ("moorage_clients.bridge", "from moorage_protocol import rendezvous"),
        ("moorage_clients.bridge", "import socket, threading"),
        ("moorage_daemon.dispatch", "from jsonrpcserver.dispatcher import x"),
        ("moorage_daemon.store.sqlite", "import apsw, moorage_daemon.store.model"),
        ("moorage_daemon.session", "from moorage_daemon import conductor, log"),
        ("moorage_daemon.__main__", "from moorage_daemon.settings import Settings"),
    ],
)
def test_import_that_points_down_is_not_blamed(module: str, source: str) -> None:
    assert violations(module, source) == []
