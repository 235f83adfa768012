"""nft as it is run: what it says on error, and when it is missing."""

from __future__ import annotations

import asyncio
import os
import shutil

import pytest

from fwd.netlink.errors import LinkError
from fwd.netlink.nft import check_nft, load_rules
from fwd.netlink.shim import in_namespace
from tests.netlink.namespaces import in_netns, namespace


def test_missing_nft_is_said_with_what_to_do(monkeypatch):
    """Nothing is tried without it."""
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(LinkError, match="nft is missing: `apt install nftables`"):
        check_nft()


def test_nft_that_cannot_be_run_is_named(monkeypatch):
    """As when it was removed under a running daemon."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LinkError, match="writing it: running nft: No such file"):
        asyncio.run(load_rules("", "writing it"))


@pytest.mark.netns
def test_a_load_is_all_or_nothing():
    """The error has the step and nft's own first line; a table before the bad line is not made."""
    with namespace() as name:
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            for text in (
                "add table ip one\nadd chain ip other c\n",
                "add table ip one\nnonsense\n",
            ):
                with pytest.raises(LinkError, match=r"writing it: nft says: /dev/stdin:2"):
                    in_namespace(fd, lambda: asyncio.run(load_rules(text, "writing it")))  # noqa: B023
                assert in_netns(name, "nft", "list", "ruleset").stdout == ""
            in_namespace(fd, lambda: asyncio.run(load_rules("add table ip one\n", "writing it")))
            assert "table ip one" in in_netns(name, "nft", "list", "ruleset").stdout
        finally:
            os.close(fd)
