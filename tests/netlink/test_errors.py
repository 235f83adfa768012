"""Errors of the room: one class, one line, an object and a next step."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
import uvloop

from fwd.netlink.errors import LinkError
from fwd.netlink.netns import open_namespace
from fwd.netlink.tunnel import open_tunnel_socket

FAILURES = {
    "fwdt-none": lambda: open_namespace("fwdt-none"),
    "/dev/null": lambda: open_namespace("/dev/null"),
    "192.0.2.1:8472": lambda: uvloop.run(open_tunnel_socket(IPv4Address("192.0.2.1"), 8472)),
}


@pytest.mark.parametrize(("thing", "fail"), FAILURES.items(), ids=FAILURES)
def test_error_is_one_line_that_names_its_object(thing, fail):
    """What the user reads after `fwd:`."""
    with pytest.raises(LinkError) as failure:
        fail()
    text = str(failure.value)
    assert thing in text
    assert "\n" not in text
    assert ": " in text
