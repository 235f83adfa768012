"""Node files for the labs of tests/netns, as plain data.

                   one host, network namespaces fwd-<run id>-*

  pods of node1                                            pods of node2
+---------+ +---------+                                  +---------+ +---------+
|  a0     | |  a1 ... |                                  |  b0     | |  b1 ... |
| 10.244. | |         |                                  | 10.244. | |         |
|    0.10 | |    0.11 |                                  |    2.10 | |    2.11 |
+--eth0---+ +--eth0---+                                  +--eth0---+ +--eth0---+
    | TAP       | TAP                                        | TAP       | TAP
+---+-----------+---------+                          +-------+-----------+-----+
|  fwd run                |   veth, MTU 1500         |  fwd run                |
|  router 10.244.0.150    |   UDP 8472               |  router 10.244.2.150    |
|  node1 192.168.56.105 eth0 ===================== eth0 192.168.56.106  node2  |
+-------------------------+                          +-------------------------+
"""

from __future__ import annotations

from typing import Any

__all__ = ["ANY_NODE_MAC", "dual_stack", "pod", "two_nodes"]

UNDERLAY = {"node1": "192.168.56.105", "node2": "192.168.56.106"}
NET = {"node1": "10.244.0", "node2": "10.244.2"}
NET6 = {"node1": "fd00:1::", "node2": "fd00:2::"}
FIRST_ID = {"node1": 1000, "node2": 2000}
FIRST_IDENTITY = {"node1": 25000, "node2": 26000}
ANY_NODE_MAC = "d2:ad:65:4d:d0:01"


def pod(node: str, index: int, **keys: Any) -> dict[str, Any]:
    """The endpoint row of pod ``index`` of ``node``: a0.. on node1, b0.. on node2."""
    letter = "a" if node == "node1" else "b"
    return {
        "name": f"default/{letter}{index}",
        "id": FIRST_ID[node] + index,
        "identity": FIRST_IDENTITY[node] + index,
        "ip": f"{NET[node]}.{10 + index}",
        **keys,
    }


def two_nodes(pods1: list[dict[str, Any]], pods2: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Node files of node1 and node2, each knowing the other's pods."""
    pods = {"node1": pods1, "node2": pods2}
    files = []
    for name, other in (("node1", "node2"), ("node2", "node1")):
        files.append(
            {
                "node": {
                    "name": name,
                    "ip": UNDERLAY[name],
                    "pod_cidr": f"{NET[name]}.0/24",
                    "router_ip": f"{NET[name]}.150",
                },
                "peers": [{"name": other, "ip": UNDERLAY[other], "pod_cidr": f"{NET[other]}.0/24"}],
                "endpoints": pods[name],
                "ipcache": [
                    {
                        "prefix": f"{row['ip']}/32",
                        "identity": row["identity"],
                        "tunnel_endpoint": UNDERLAY[other],
                    }
                    for row in pods[other]
                ],
                "conntrack": {"capacity": {"tcp": 4096, "any": 4096}},
            }
        )
    return files


def dual_stack(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The node files with an IPv6 address beside every IPv4 one."""
    for data, other in zip(files, reversed(files), strict=True):
        node, (peer,) = data["node"], data["peers"]
        theirs = NET6[peer["name"]]
        node["pod_cidr"] = [node["pod_cidr"], f"{NET6[node['name']]}/64"]
        node["router_ip"] = [node["router_ip"], f"{NET6[node['name']]}150"]
        peer["pod_cidr"] = [peer["pod_cidr"], f"{theirs}/64"]
        peer["router_ip"] = [f"{NET[peer['name']]}.150", f"{theirs}150"]
        for row in data["endpoints"]:
            row["ip"] = [row["ip"], _six(node["name"], row["ip"])]
        data["ipcache"] += [
            {
                "prefix": f"{_six(peer['name'], _four(row))}/128",
                "identity": row["identity"],
                "tunnel_endpoint": peer["ip"],
            }
            for row in other["endpoints"]
        ]
    return files


def _four(row: dict[str, Any]) -> str:
    return row["ip"] if isinstance(row["ip"], str) else row["ip"][0]


def _six(node: str, address: str) -> str:
    """The IPv6 address of the pod with an IPv4 one: the last number is the same, read as hex."""
    return f"{NET6[node]}{address.rsplit('.', 1)[1]}"
