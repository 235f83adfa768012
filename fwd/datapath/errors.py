"""Errors of the datapath room: every C failure becomes one of these, with the C side's sentence."""

from __future__ import annotations

__all__ = ["AbiMismatchError", "AttachError", "DatapathError"]


class DatapathError(Exception):
    """A table refused a row, or an arena or the pump could not be set up."""


class AttachError(DatapathError):
    """An existing arena cannot be taken over; start with a new one."""


class AbiMismatchError(DatapathError):
    """The extension was built from other sources than this package; build it again."""
