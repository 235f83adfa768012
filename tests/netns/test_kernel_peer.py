"""The kernel's own VXLAN device as the peer: fwd speaks the protocol, not only to itself.

a0 -- TAP -- fwd node1 ============ UDP 8472, VNI 42 ============ vxlan42 (kernel)
10.244.0.10  192.168.56.105                           192.168.56.107  10.244.7.1/24
                                                      namespace "legacy"
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from fwd.control.lab import Lab
from fwd.model.enums import Drop
from tests.netns.net import PREFIX, Net
from tests.netns.worlds import ANY_NODE_MAC, pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netns]

A0, NODE1 = "10.244.0.10", "192.168.56.105"
LEGACY, LEGACY_IP = "192.168.56.107", "10.244.7.1"

# As `ethtool -K vxlan42 tx off`. A veth is no wire: the kernel would leave the inner checksum
# unfinished for the NIC that never comes, and a UDP socket reads it like that.
FINISH_CHECKSUMS = """
import array, fcntl, socket, struct
value = array.array("B", struct.pack("II", 0x17, 0))  # ETHTOOL_STXCSUM, off
request = struct.pack("16sP8x", b"vxlan42", value.buffer_info()[0])
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8946, request)  # SIOCETHTOOL
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """node1 with one pod, and a namespace with a kernel VXLAN device."""
    data, _ = two_nodes([pod("node1", 0, node_mac=ANY_NODE_MAC)], [])
    data["peers"] = [
        {"name": "legacy", "ip": LEGACY, "pod_cidr": "10.244.7.0/24", "vni": 42, "identity": 2}
    ]
    with Lab(PREFIX) as lab:
        net = Net(lab)
        node1 = net.add_node(data)
        lab.namespace("legacy")
        lab.wire([("node1", f"{NODE1}/24"), ("legacy", f"{LEGACY}/24")])
        # The pod's frames keep their MACs in the tunnel, so the device that receives them has the
        # MAC that pods know as their gateway's; the tunnel carries no ARP, so neighbours are fixed.
        for line in (
            f"link add vxlan42 type vxlan id 42 dstport 8472 remote {NODE1} dev eth0",
            f"link set vxlan42 address {ANY_NODE_MAC} mtu 1450 up",
            f"addr add {LEGACY_IP}/24 dev vxlan42",
            "route add 10.244.0.0/24 dev vxlan42",
            f"neigh add {A0} lladdr 02:00:00:00:00:99 dev vxlan42 nud permanent",
        ):
            lab.ip("-n", lab.name("legacy"), *line.split())
        lab.run("legacy", sys.executable, "-c", FINISH_CHECKSUMS)
        net.start(node1)
        yield net


def test_pod_reaches_the_kernel(net):
    """A ping from the pod is answered by the kernel behind its VXLAN device."""
    assert net.reaches("a0", LEGACY_IP)
    received = net.lab.run("legacy", "cat", "/sys/class/net/vxlan42/statistics/rx_packets").stdout
    assert int(received) > 0


def test_the_kernel_reaches_a_pod(net):
    """A ping from behind the VXLAN device is answered by the pod."""
    assert net.reaches("legacy", A0)


def test_tcp_works_both_ways(net, tmp_path):
    """HTTP from the pod to the kernel side and back: checksums and MTU are right."""
    (tmp_path / "page").write_bytes(b"0123456789abcdef" * 65536)
    for server, client, address in (("legacy", "a0", LEGACY_IP), ("a0", "legacy", A0)):
        web = net.lab.spawn(
            server, sys.executable, "-m", "http.server", "--directory", str(tmp_path), "8000",
            log="http.log",
        )  # fmt: skip
        url = f"http://{address}:8000/page"
        net.lab.wait_for(
            f"the server in {server}",
            lambda url=url, client=client: (
                net.lab.run(client, "curl", "-sfI", "-m", "3", url, check=False).returncode == 0
            ),
        )
        got = net.lab.run(client, "curl", "-sSf", "-m", "60", url).stdout
        net.lab.end([web.pid])
        assert got == "0123456789abcdef" * 65536


def test_another_vni_is_refused(net):
    """What comes with another VNI than the peer's own is dropped and counted."""
    node1 = net.nodes["node1"]
    before = net.drops(node1, Drop.VNI_NOT_IDENTITY)
    inner = Ether(dst=ANY_NODE_MAC, src="02:00:00:00:00:01") / IP(src=LEGACY_IP, dst=A0) / UDP()
    payload = "0800000000002b00" + bytes(inner).hex()
    send = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        f"s.sendto(bytes.fromhex('{payload}'), ('{NODE1}', 8472))"
    )
    net.lab.run("legacy", sys.executable, "-c", send)
    net.lab.wait_for(
        "the counter", lambda: net.drops(node1, Drop.VNI_NOT_IDENTITY) == before + 1, timeout_s=10
    )
