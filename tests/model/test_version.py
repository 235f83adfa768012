"""The version is the installed distribution's."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from fwd.model.version import version


def test_version_of_a_source_tree_says_so(monkeypatch: pytest.MonkeyPatch):
    """A tree that was never installed has no version and no traceback."""

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    version.cache_clear()
    monkeypatch.setattr("importlib.metadata.version", absent)
    assert version() == "0+uninstalled"
    version.cache_clear()


def test_version_is_the_distributions(monkeypatch: pytest.MonkeyPatch):
    """What pip knows is what we say."""
    version.cache_clear()
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"1.2.3 of {name}")
    assert version() == "1.2.3 of fwd"
    version.cache_clear()
