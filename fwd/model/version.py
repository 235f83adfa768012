"""The version of the running package, as pyproject.toml has it."""

from __future__ import annotations

from functools import cache

__all__ = ["version"]


@cache
def version() -> str:
    """Read the installed version; a source tree that was never installed has none."""
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415 - 20 ms, rarely asked
    from importlib.metadata import version as installed  # noqa: PLC0415

    try:
        return installed("fwd")
    except PackageNotFoundError:
        return "0+uninstalled"
