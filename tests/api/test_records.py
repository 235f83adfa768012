"""Conntrack as records: what a client makes of them is what JSON says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fwd.api import records
from fwd.api.client import ApiError, Client
from fwd.api.records import CT_RECORDS, NEXT_HEADER, ct_entries
from tests.api.frames import syn

if TYPE_CHECKING:
    from tests.api.daemon import LabDaemon


@pytest.mark.parametrize("name", ["tcp", "any"])
def test_records_say_what_json_says(lab: LabDaemon, name: str, monkeypatch: pytest.MonkeyPatch):
    """Every key of every row, over several pages."""
    for number in range(50):
        lab.send(syn(sport=1000 + number))
    monkeypatch.setattr(records, "_PAGE_ROWS", 7)
    with Client(lab.socket) as client:
        found = list(ct_entries(client, name))
        assert found == list(client.rows("/v1/ct", map=name))
    assert len(found) == (50 if name == "tcp" else 1)


def test_records_are_what_is_sent(lab: LabDaemon):
    """The daemon copies its records, and names the layout and the next page."""
    lab.send(syn())
    with Client(lab.socket) as client:
        kind, following, body = client.fetch("/v1/ct", (CT_RECORDS, NEXT_HEADER), map="tcp")
    assert (kind, following, len(body)) == (CT_RECORDS, "0", 104)


def test_daemon_of_another_version_is_understood(lab: LabDaemon, monkeypatch: pytest.MonkeyPatch):
    """Who asks for a layout that the daemon does not know gets JSON, page by page."""
    for number in range(50):
        lab.send(syn(sport=1000 + number))
    monkeypatch.setattr(records, "CT_RECORDS", "application/vnd.fwd.ct-records; abi=0")
    monkeypatch.setattr(records, "_PAGE_ROWS", 7)
    with Client(lab.socket) as client:
        assert list(ct_entries(client, "tcp")) == list(client.rows("/v1/ct", map="tcp"))


def test_refusals_are_the_daemons_words(lab: LabDaemon):
    """A map that does not exist is refused as for JSON."""
    with Client(lab.socket) as client, pytest.raises(ApiError, match="map='x' is unknown"):
        next(ct_entries(client, "x"))
