"""Secrets that a test plants, and the search for them in whatever form."""

import base64
import html
import json
import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import msgspec


# How programs print a text, those with something around it included.
FORMS: Mapping[str, Callable[[str], str]] = {
    "plain": str,
    "twice": lambda text: text * 2,
    "json": json.dumps,
    "json in utf-8": lambda text: json.dumps(text, ensure_ascii=False),
    "json with escaped slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "json in json": lambda text: json.dumps(json.dumps(text)),
    "msgspec's json": lambda text: msgspec.json.encode(text).decode(),
    "repr": repr,
    "shell": shlex.quote,
    "html": html.escape,
    "percent": lambda text: quote(text, safe=""),
    "a path": quote,
    "a query": quote_plus,
    "small percent": lambda text: re.sub("%..", lambda f: f[0].lower(), quote(text, "")),
    "hex": lambda text: text.encode().hex(),
    "capital hex": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "basic auth": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "base64 behind two": lambda text: base64.b64encode(f"us{text}x".encode()).decode(),
    "base64 for addresses": lambda text: base64.urlsafe_b64encode(f"u{text}".encode()).decode(),
}


def disguises(secret: str) -> set[bytes]:
    """What the secret looks like in all of these forms, without what stands around it."""
    return {
        form.strip("\"'=")[6:-6].encode() if "base64" in name or name == "basic auth" else
        form.removeprefix('"').removesuffix('"').encode()
        for name, form in ((name, write(secret)) for name, write in FORMS.items())
        if name != "shell"
    }  # fmt: skip


def is_told(secret: str, data: bytes) -> bool:
    """Whether it stands in there."""
    return any(form in data for form in disguises(secret))


def files_with(secret: str, folder: Path) -> list[str]:
    """The files beneath a folder in which it stands, or that are called so."""
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and is_told(secret, bytes(path) + b"\0" + path.read_bytes())
    ]


def command_lines_with(secret: str) -> list[str]:
    """The programs of this machine in whose arguments it stands."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += [str(path)] if is_told(secret, path.read_bytes()) else []
    return found
