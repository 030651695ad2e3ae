"""The daemon's README says where everything that is stored of a session has its place."""

from pathlib import Path

import pytest

from moorage_daemon.store.model import Kind
from moorage_protocol.config import SessionConfig
from tests.test_layering import LAYERS


README = (Path(__file__).parents[2] / "daemon" / "README.md").read_text(encoding="utf-8")

# Said elsewhere, or no part of what other stores keep.
BESIDE = {"tool", "update", "begin", "ask", "answer", "override", "config", "posture", "archive"}


@pytest.mark.parametrize("kind", sorted(set(Kind) - BESIDE - {"imported"}))
def test_kind_of_entry_has_its_place(kind: str) -> None:
    assert f"`{kind}`" in README


@pytest.mark.parametrize("name", SessionConfig.__struct_encode_fields__)
def test_field_of_the_configuration_has_its_place(name: str) -> None:
    assert f"`config.{name}`" in README or f"`{name}`" in README


@pytest.mark.parametrize("package", ["transfer", "ledger", "grants", "log", "store", "processes"])
def test_package_is_on_the_map(package: str) -> None:
    assert any(package in row for row in LAYERS)
    assert f"`{package}/`" in README
