"""Which store the setting means, ours and those of installed packages."""

import subprocess
import sys
from pathlib import Path

import pytest

from moorage_daemon.settings import StoreAddress
from moorage_daemon.store.opening import BadStore, find_store
from moorage_daemon.store.port import StoreBroken, StoreError
from tests.daemon.store.samples import creation


def address(text: str) -> StoreAddress:
    scheme, _, rest = text.partition(":")
    return StoreAddress(scheme, rest)


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ("sqlite:", "sqlite", "sessions.db"),
        ("sqlite:other.db", "sqlite", "other.db"),
        ("file:", "file", "store"),
        ("file:journals", "file", "journals"),
    ],
)
async def test_a_relative_path_lies_beneath_the_state_directory(
    tmp_path: Path, text: str, name: str, path: str
) -> None:
    choice = find_store(address(text), tmp_path)
    assert choice.path == tmp_path / path
    assert not list(tmp_path.iterdir())  # found, and not touched

    async with choice.open() as store:
        await store.commit([creation("s1", 1)])
        assert store.name == name

    assert (tmp_path / path).exists()
    choice.inspect()


async def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    async with find_store(address(f"file:{elsewhere}/s"), tmp_path / "state").open() as store:
        await store.commit([creation("s1", 1)])

    assert (elsewhere / "s" / "store.json").exists()


async def test_memory_keeps_nothing(tmp_path: Path) -> None:
    choice = find_store(address("memory:"), tmp_path)

    async with choice.open() as store:
        assert store.name == "memory"

    choice.inspect()
    assert choice.path is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("memory:x", "takes nothing behind it"),
        ("sqlite:../x.db", "beneath the state dir"),
        ("file:a/../../b", "beneath the state dir"),
        ("postgres://host/db", "there are: sqlite:, file:, memory:"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(BadStore, match=why) as caught:
        find_store(address(text), tmp_path)

    assert len(str(caught.value).splitlines()) == 1


async def test_a_missing_parent_is_no_place_for_a_store(tmp_path: Path) -> None:
    for text in ("file:a/b/c", "sqlite:a/b.db"):
        with pytest.raises(StoreError):
            async with find_store(address(text), tmp_path).open():
                pass


async def test_a_directory_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o755)
    (tmp_path / "store" / "holiday.jpg").touch()

    with pytest.raises(StoreBroken, match="holds files of something else"):
        async with find_store(address("file:"), tmp_path).open():
            pass

    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o755
    assert [file.name for file in (tmp_path / "store").iterdir()] == ["holiday.jpg"]


def test_a_damaged_store_is_found_without_opening_it(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "store.json").write_text('{"format":9}')
    (tmp_path / "sessions.db").write_bytes(b"no database, but long enough to be looked at " * 100)

    for text in ("file:", "sqlite:"):
        with pytest.raises(StoreBroken):
            find_store(address(text), tmp_path).inspect()


# ---- stores of installed packages


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """A distribution that declares the scheme "kept" and holds the module `kept_store`."""
    info = folder / "kept_store-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kept-store\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[moorage.stores]\nkept = {target}\n")
    (folder / "kept_store.py").write_text(KEPT_STORE)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.delitem(sys.modules, "kept_store", raising=False)


KEPT_STORE = """
from contextlib import asynccontextmanager
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.opening import BadStore

class KeptStore(MemoryStore):
    name = "kept"

def open(rest, state_dir):
    if rest != "here":
        raise BadStore("kept: knows only here")
    return opened(state_dir)

@asynccontextmanager
async def opened(state_dir):
    (state_dir / "kept").touch()
    yield KeptStore()
"""


async def test_a_store_of_an_installed_package_is_opened_by_its_scheme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", monkeypatch, "kept_store:open")
    choice = find_store(address("kept:here"), tmp_path)
    assert not (tmp_path / "kept").exists()

    async with choice.open() as store:
        await store.commit([creation("s1")])
        assert store.name == "kept"

    assert (tmp_path / "kept").exists()
    with pytest.raises(BadStore, match="knows only here"):
        find_store(address("kept:there"), tmp_path)
    with pytest.raises(BadStore, match="memory:, kept:"):
        find_store(address("unheard-of:"), tmp_path)


@pytest.mark.parametrize("target", ["kept_store:missing", "no_such_module:open"])
def test_a_package_that_cannot_be_loaded_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    install(tmp_path / "site", monkeypatch, target)

    with pytest.raises(BadStore, match="kept: cannot be loaded") as caught:
        find_store(address("kept:here"), tmp_path)

    assert len(str(caught.value).splitlines()) == 1


def test_nobody_looks_through_the_packages_for_one_of_our_own_schemes(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
import importlib.metadata
def looked(*args, **kwargs):
    raise SystemExit("looked")
importlib.metadata.entry_points = looked
from moorage_daemon.settings import StoreAddress
from moorage_daemon.store.opening import find_store
for scheme in sys.argv[1:]:
    find_store(StoreAddress(scheme, ""), Path("/nowhere"))
"""

    def run(*schemes: str) -> str:
        command = [sys.executable, "-c", program, *schemes]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    assert run("sqlite", "file", "memory") == ""
    assert run("kept") == "looked\n"
