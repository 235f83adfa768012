"""What services need for traffic from outside, as rows."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

from fwd.config.load import parse_node_text
from fwd.control.apply import apply, diff
from fwd.control.compile import compile_world
from fwd.control.services import wildcard_numbers
from fwd.control.world import World
from fwd.datapath.binding import Datapath
from fwd.model.maglev import MAGLEV_SIZE
from fwd.model.rows import SourceRangeRow
from fwd.observe.dump_services import lb_cells, service_records

NODE = "node: {name: n, ip: 192.0.2.1, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}\n"
BACKENDS = "backends: [{ip: 10.0.0.9, port: 8080}, {ip: 10.0.0.8, port: 8080, state: terminating}]"
ON = "features: {nodeport: true}\n"


def world(*rows: str, features: str = ON) -> World:
    """A node with these services."""
    services = "".join(f"  - {{{row}, {BACKENDS}}}\n" for row in rows)
    return compile_world(parse_node_text(f"{NODE}{features}services:\n{services}", Path("w.yaml")))


EXT = "name: e, frontend: 198.51.100.1, port: 80, flags: [external_ip, routable]"
NODE_PORT = "name: n, frontend: 192.0.2.1, port: 30080, flags: [node_port, routable]"
CLUSTER = "name: c, frontend: 10.96.0.1, port: 80"
RANGED = (
    "name: r, frontend: 198.51.100.2, port: 80, flags: [load_balancer, routable, source_range], "
    "source_ranges: [10.0.0.0/8, 10.0.0.0/8, 192.0.2.7/32]"
)


def test_an_address_of_services_alone_has_one_wildcard() -> None:
    """Two ports, one entry; the node's own address and a ClusterIP have none."""
    made = world(EXT, EXT.replace("port: 80", "port: 443"), NODE_PORT, CLUSTER)
    (wildcard,) = [row for row in made.services if row.proto == 0]
    assert (wildcard.frontend, wildcard.port, wildcard.backends) == (
        ip_address("198.51.100.1"), 0, ())  # fmt: skip
    numbers = [row.rev_nat_id for row in made.services]
    assert len(set(numbers)) == len(numbers)


def test_an_external_address_that_is_the_nodes_has_no_wildcard() -> None:
    """Else nothing of the host would be reached any more."""
    made = world(EXT.replace("198.51.100.1", "192.0.2.1"))
    assert [row.proto for row in made.services] == [6]


def test_a_wildcard_takes_no_services_number() -> None:
    """Whatever is taken, the numbers are others."""
    addr = ip_address("198.51.100.1")
    (first,) = wildcard_numbers([addr], ()).values()
    assert wildcard_numbers([addr], {first, first + 1}) == {addr: first + 2}


def test_source_ranges_belong_to_the_services_that_check_them() -> None:
    """Each once, by the service's number; without the flag none."""
    made = world(RANGED, RANGED.replace(", source_range]", "]").replace("100.2", "100.3"))
    number = made.services[0].rev_nat_id
    assert made.source_ranges == (
        SourceRangeRow(number, ip_network("10.0.0.0/8")),
        SourceRangeRow(number, ip_network("192.0.2.7/32")),
    )


def test_routable_services_get_a_table_of_their_active_backends() -> None:
    """A ClusterIP has none, and a backend that drains has no place."""
    made = world(EXT, CLUSTER)
    (table,) = made.maglev
    active = next(row.id for row in made.backends if row.state == 0)
    assert table.rev_nat_id == made.services[0].rev_nat_id
    assert table.backends == (active,) * MAGLEV_SIZE


def test_off_means_none_of_it() -> None:
    """Without the feature the tables stay empty and the setting is off."""
    made = world(EXT, RANGED, features="")
    assert (made.source_ranges, made.maglev, made.settings.nodeport) == ((), (), False)
    assert all(row.proto for row in made.services)
    assert world(EXT).settings.nodeport


def held(dp: Datapath, made: World) -> tuple[object, ...]:
    """What the tables hold of a world."""
    tables = {row.rev_nat_id: dp.maglev(row.rev_nat_id) for row in made.maglev}
    return set(dp.services()), set(dp.source_ranges()), tables, dp.stats("maglev").count


def wanted(made: World) -> tuple[object, ...]:
    """What they should."""
    tables = {row.rev_nat_id: row.backends for row in made.maglev}
    return set(made.services), set(made.source_ranges), tables, len(tables)


def test_a_reload_leaves_just_the_new_worlds_rows() -> None:
    """On, more, other backends, off and on again: the tables follow."""
    other = RANGED.replace("10.0.0.0/8", "172.16.0.0/12")
    worlds = [
        world(EXT),
        world(EXT, RANGED),
        world(EXT, other, NODE_PORT),
        world(EXT, other, features=""),
        world(other),
    ]
    old = None
    with Datapath.create(worlds[0].params) as dp:
        for made in worlds:
            apply(dp, diff(old, made))
            old = made
            assert held(dp, made) == wanted(made)


def test_a_wildcard_is_shown_as_what_it_is() -> None:
    """Its name and protocol say that it stands for the other ports."""
    made = world(EXT)
    first = service_records(made.services, made.backends, made.service_names)[0]
    assert (first["name"], first["proto"], first["port"]) == ("(wildcard)", "any", 0)
    (cells,) = lb_cells(first)
    assert cells[0] == "198.51.100.1:0/ANY (0)"
