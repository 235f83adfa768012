"""csrc/base/vxlan.h: the header's bytes, with scapy as judge."""

from __future__ import annotations

import pytest
from scapy.layers.vxlan import VXLAN

from tests.csrc.internal import internal


@pytest.mark.parametrize("vni", [0, 1, 2, 48172, 0xFFFFFF])
def test_vxlan_build_is_what_scapy_builds(vni: int) -> None:
    """I flag, VNI and nothing else; and it parses back."""
    ffi, lib = internal()
    at = ffi.new("uint8_t[8]", b"\xff" * 8)
    lib.vxlan_build(at, vni)
    assert bytes(ffi.buffer(at)) == bytes(VXLAN(vni=vni, flags="Instance"))
    back = ffi.new("uint32_t *")
    assert lib.vxlan_parse(at, back)
    assert back[0] == vni


def test_vxlan_example_bytes_of_the_reference() -> None:
    """Source identity 48172, datapath reference 8.7."""
    ffi, lib = internal()
    at = ffi.new("uint8_t[8]")
    lib.vxlan_build(at, 48172)
    assert bytes(ffi.buffer(at)).hex() == "0800000000bc2c00"


@pytest.mark.parametrize("byte", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("bit", range(8))
def test_vxlan_parse_refuses_a_missing_i_flag_and_reserved_bits(byte: int, bit: int) -> None:
    """Any one bit flipped outside the VNI is no tunnel key."""
    ffi, lib = internal()
    raw = bytearray.fromhex("0800000000bc2c00")
    raw[byte] ^= 1 << bit
    assert not lib.vxlan_parse(bytes(raw), ffi.new("uint32_t *"))
