"""Services to rows: numbers that stay, flags, scopes."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from fwd.config.schema import BackendRow as Backend
from fwd.config.schema import ServiceFlag, ServiceSection
from fwd.control import services as services_module
from fwd.control.services import SERVICE_FLAGS, compile_services, service_names
from fwd.datapath.binding import lib
from tests.control.worlds import node_file

TEXT = """\
- {name: web, frontend: 10.96.0.1, port: 80, flags: [two_scopes, affinity], affinity_timeout_s: 9,
   backends: [{ip: 10.0.2.1, port: 8080}, {ip: 10.0.2.2, port: 8080, state: terminating}]}
- {name: web, frontend: 10.96.0.1, port: 80, scope: internal, backends: [{ip: 10.0.2.2, port: 8080,
   state: terminating}]}
- {name: dns, frontend: 10.96.0.1, port: 80, proto: udp, backends: [{ip: 10.0.2.1, port: 8080}]}
- {name: six, frontend: "fd00:96::1", port: 80, proto: sctp, flags: [routable, int_local]}
"""


def rows_of(text):
    """The rows of YAML service sections."""
    return compile_services(node_file(services=text).services)


def test_rows_say_what_the_file_says():
    """Fields, flags and slots in the file's order; one row a backend."""
    services, backends = rows_of(TEXT)
    by_id = {row.id: row for row in backends}
    web, inner, dns, six = services
    assert (web.frontend, web.port, web.proto, web.scope) == (ip_address("10.96.0.1"), 80, 6, 0)
    assert (web.flags, web.affinity_timeout_s) == (32 << 8 | 16, 9)
    assert [(str(by_id[i].addr), by_id[i].port, by_id[i].state) for i in web.backends] == [
        ("10.0.2.1", 8080, 0), ("10.0.2.2", 8080, 1)
    ]  # fmt: skip
    assert (inner.scope, inner.backends) == (1, web.backends[1:])
    assert (six.proto, six.flags, six.backends) == (132, 64 | 16 << 8, ())
    assert by_id[dns.backends[0]].proto == 17
    assert len(backends) == 3, "two TCP backends and one of UDP at the same address"


def test_both_scopes_share_the_reverse_nat_id_and_protocols_do_not():
    """An id leads back to one address, port and protocol."""
    web, inner, dns, six = rows_of(TEXT)[0]
    assert web.rev_nat_id == inner.rev_nat_id
    assert len({web.rev_nat_id, dns.rev_nat_id, six.rev_nat_id}) == 3
    assert service_names(node_file(services=TEXT).services, (web, inner, dns, six)) == {
        web.rev_nat_id: "web", dns.rev_nat_id: "dns", six.rev_nat_id: "six"
    }  # fmt: skip


def test_flags_are_those_of_the_abi():
    """Every word of the node file has the bit that C gives it."""
    assert set(SERVICE_FLAGS) == set(ServiceFlag.__args__)
    for word, bit in SERVICE_FLAGS.items():
        assert bit == getattr(lib, f"FWD_SVC_{word.upper()}")


def test_numbers_do_not_depend_on_order_or_neighbours():
    """The same service has the same numbers wherever it stands and whatever is beside it."""
    alone = rows_of(TEXT.split("\n- ", maxsplit=1)[0] + "\n")
    services, backends = rows_of(TEXT)
    turned = rows_of("- " + "\n- ".join(reversed(TEXT.removeprefix("- ").split("\n- "))))
    assert services[0] == alone[0][0]
    assert set(alone[1]) <= set(backends)
    assert set(turned[0]) == set(services)
    assert turned[1] == backends


def test_numbers_are_the_same_for_ever():
    """Connections outlive releases: what numbers are derived from is fixed."""
    services, backends = rows_of(TEXT)
    assert (services[0].rev_nat_id, services[0].backends[0]) == (22786, 1647989766)
    assert min(row.id for row in backends) >= 1


@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["tcp", "udp"])), max_size=60,
             unique=True),
    st.randoms(),
)  # fmt: skip
def test_collisions_end_in_different_numbers_whatever_the_order(keys, random):
    """Many frontends in few numbers: each has its own, the order of the file means nothing."""
    rows = [
        ServiceSection(name="s", frontend="10.96.0.1", port=port, proto=proto)
        for port, proto in keys
    ]
    most, services_module._REV_NAT_IDS = services_module._REV_NAT_IDS, 61
    try:
        first, _ = compile_services(rows)
        random.shuffle(rows)
        second, _ = compile_services(rows)
    finally:
        services_module._REV_NAT_IDS = most
    numbers = [row.rev_nat_id for row in first]
    assert len(set(numbers)) == len(numbers)
    assert all(1 <= number <= 61 for number in numbers)
    assert set(first) == set(second)


def test_a_state_change_keeps_the_number():
    """A backend that drains is the backend it was."""

    def one(state):
        backend = Backend(ip="10.0.2.1", port=80, state=state)
        return compile_services(
            [ServiceSection(name="s", frontend="10.96.0.1", port=80, backends=(backend,))]
        )

    (_, (active,)), (_, (draining,)) = one("active"), one("terminating")
    assert (active.id, active.state, draining.state) == (draining.id, 0, 1)
