"""fwd/datapath/binding.py: one arena as a Python object."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from fwd.datapath.binding import Datapath, Packet, lib
from fwd.datapath.errors import AttachError, DatapathError
from fwd.datapath.packet import (
    OFFLOAD_MERGE_TCP,
    OFFLOAD_MERGE_UDP,
    OFFLOAD_UDP_GRO,
    OFFLOAD_UDP_SEGMENT,
    PORT_HOST,
    PORT_NETDEV,
    PORT_OVERLAY,
)
from fwd.model.enums import Verdict
from fwd.model.rows import EndpointRow, Params, Settings

SMALL = Params(ct_tcp=64, ct_any=64, ipcache=64, endpoints=8, lxc=16, policy=64, peers=8)
BOOT = bytes(range(16))
SETTINGS = Settings(
    ct_tcp_s=1,
    ct_any_s=2,
    monitor_mask=5,
    monitor_aggregation=3,
    tunnel_port=4789,
    tunnel=False,
    verify_source=False,
    ttl_exceeded_reply=True,
    reject_deny=True,
    tunnel_mtu=1450,
    router_ip4=IPv4Address("10.244.0.150"),
    node_ip6=IPv6Address("2001:db8::105"),
    loopback6=IPv6Address("fd00::1"),
    router_mac=b"\x02\x00\x00\x00\x00\x01",
    host_mac=b"\x02\x00\x00\x00\x00\x02",
    vlan_allowed=frozenset({1, 7, 8, 4095}),
)


def test_binding_ports_are_those_of_the_library() -> None:
    """packet.py repeats some numbers of abi.h, so that values need no extension."""
    assert (PORT_HOST, PORT_NETDEV, PORT_OVERLAY) == (
        lib.FWD_PORT_HOST,
        lib.FWD_PORT_NETDEV,
        lib.FWD_PORT_OVERLAY,
    )
    assert (OFFLOAD_UDP_SEGMENT, OFFLOAD_UDP_GRO, OFFLOAD_MERGE_TCP, OFFLOAD_MERGE_UDP) == (
        lib.FWD_OFFLOAD_UDP_SEGMENT,
        lib.FWD_OFFLOAD_UDP_GRO,
        lib.FWD_OFFLOAD_MERGE_TCP,
        lib.FWD_OFFLOAD_MERGE_UDP,
    )


def test_settings_and_params_come_back_as_they_went() -> None:
    """Every field crosses the border both ways."""
    params = replace(SMALL, hash_seed=2**63 + 5, boot_id=BOOT)
    with Datapath.create(params) as dp:
        dp.set_settings(SETTINGS)
        assert dp.settings == SETTINGS
        assert dp.params == params


def test_run_takes_more_than_one_batch_in_order() -> None:
    """70 packets, three batches, one outcome each."""
    with Datapath.create(SMALL) as dp:
        dp.endpoint_upsert(EndpointRow(5, 300, 1, b"\x02" * 6, b"\x04" * 6))
        frames = [bytes(12) + b"\x08\x06" + bytes([i]) for i in range(70)]
        dp.set_settings(Settings(punt_burst=1000))
        outcomes = dp.run(1, [Packet(frame, 5) for frame in frames])
        assert [outcome.frame for outcome in outcomes] == frames
        assert {outcome.verdict for outcome in outcomes} == {Verdict.PUNT}


def test_attach_finds_what_another_handle_left() -> None:
    """The memfd outlives the handle: endpoint, settings and generation are still there."""
    fd = os.memfd_create("fwd-test")
    try:
        row = EndpointRow(5, 300, 1, b"\x02" * 6, b"\x04" * 6)
        with Datapath.create(replace(SMALL, boot_id=BOOT), fd) as dp:
            dp.endpoint_upsert(row)
            dp.set_settings(SETTINGS)
            dp.generation = 7
        again, torn = Datapath.attach(fd, BOOT)
        with again:
            assert (list(again.endpoints()), torn, again.generation) == ([row], 0, 7)
            assert again.settings == SETTINGS
        with pytest.raises(AttachError, match="boot"):
            Datapath.attach(fd, bytes(16))
    finally:
        os.close(fd)


def test_view_sees_the_tables_and_changes_nothing() -> None:
    """A packet run on a view leaves no entry, no counter and no event behind it."""
    fd = os.memfd_create("fwd-test")
    try:
        with Datapath.create(SMALL, fd) as dp:
            dp.endpoint_upsert(EndpointRow(5, 300, 1, b"\x02" * 6, b"\x04" * 6))
            with dp.view(fd) as view:
                assert list(view.endpoints()) == list(dp.endpoints())
                assert view.run(1, [Packet(bytes(60), 5)])[0].drop == 166
                assert view.metrics()
                view.endpoint_delete(5)
            assert dp.metrics() == []
            assert len(list(dp.endpoints())) == 1
    finally:
        os.close(fd)


def test_create_says_which_capacity_is_wrong() -> None:
    """The C side's sentence is the exception's text."""
    with pytest.raises(DatapathError, match="events"):
        Datapath.create(replace(SMALL, events=3))


def test_close_may_be_called_twice() -> None:
    """Composition closes in finally blocks."""
    dp = Datapath.create(SMALL)
    dp.close()
    dp.close()
