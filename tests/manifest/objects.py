"""Manifests of the tests, read from text that is changed in one place a test."""

from __future__ import annotations

from textwrap import dedent

import pytest

from fwd.manifest.load import merge, parse_file
from fwd.manifest.reader import ManifestError

__all__ = ["error_of", "read"]


def read(text):
    """What one file says."""
    return merge(parse_file(dedent(text), "m.yaml"))


def error_of(text):
    """The one line that refuses a file."""
    with pytest.raises(ManifestError) as caught:
        read(text)
    told = str(caught.value)
    assert "\n" not in told
    return told
