"""World: names of the node's own ports."""

from __future__ import annotations

from fwd.control.world import HOST_PORTS
from fwd.datapath.binding import lib


def test_port_names_are_the_datapath_s_ports():
    """The names replay and the CLI use stand for FWD_PORT_* of csrc/abi.h."""
    assert dict(HOST_PORTS) == {
        "cilium_host": lib.FWD_PORT_HOST,
        "netdev": lib.FWD_PORT_NETDEV,
        "overlay": lib.FWD_PORT_OVERLAY,
    }
