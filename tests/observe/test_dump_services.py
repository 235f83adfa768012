"""Services as objects, and line for line as Cilium's `bpf lb list` has them."""

from __future__ import annotations

from ipaddress import ip_address as ip

import pytest

from fwd.model.rows import BackendRow, ServiceRow
from fwd.observe.dump_services import (
    backend_text,
    frontend_text,
    lb_cells,
    service_records,
    service_type,
)

WEB = ServiceRow(ip("10.96.0.20"), 80, 6, 0, 0, 7, 0, (1, 2, 3))
SIX = ServiceRow(ip("fd00::20"), 53, 17, 1, 64 | 16, 8, 30, ())
BACKENDS = (
    BackendRow(1, ip("10.244.2.171"), 8080, 6),
    BackendRow(2, ip("10.244.2.172"), 8080, 6, state=1),
)


def test_records_have_the_node_files_words_and_the_numbers():
    """One object a frontend, slots in order; a slot whose backend is missing says so."""
    web, six = service_records((SIX, WEB), BACKENDS, {7: "default/web"})
    assert {key: web[key] for key in ("name", "frontend", "port", "proto", "scope", "flags")} == {
        "name": "default/web", "frontend": "10.96.0.20", "port": 80, "proto": "tcp",
        "scope": "external", "flags": [],
    }  # fmt: skip
    assert (web["rev_nat_id"], web["affinity_timeout_s"]) == (7, 0)
    assert web["backends"] == [
        {"slot": 1, "id": 1, "ip": "10.244.2.171", "port": 8080, "state": "active"},
        {"slot": 2, "id": 2, "ip": "10.244.2.172", "port": 8080, "state": "terminating"},
        {"slot": 3, "id": 3, "ip": None, "port": None, "state": None},
    ]
    assert (six["name"], six["scope"], six["flags"]) == (None, "internal", ["affinity", "routable"])


def test_lb_list_is_cilium_s():
    """Slot 0 is the frontend with its flags, then a row a slot."""
    web, six = service_records((WEB, SIX), BACKENDS, {})
    assert list(lb_cells(web)) == [
        ("10.96.0.20:80/TCP (0)", "0.0.0.0:0 (7) (0) [ClusterIP, non-routable]"),
        ("10.96.0.20:80/TCP (1)", "10.244.2.171:8080/TCP (7) (1)"),
        ("10.96.0.20:80/TCP (2)", "10.244.2.172:8080/TCP (7) (2) [terminating]"),
        ("10.96.0.20:80/TCP (3)", "0.0.0.0:0/TCP (7) (3)"),
    ]
    assert list(lb_cells(six)) == [
        ("[fd00::20]:53/UDP/i (0)", "[::]:0 (8) (0) [ClusterIP, sessionAffinity]")
    ]


TYPES = [(0, "ClusterIP"), (2, "NodePort"), (32, "LoadBalancer"), (1, "ExternalIPs"),
         (8, "HostPort"), (2 | 128 | 4, "NodePort")]  # fmt: skip


@pytest.mark.parametrize(("flags", "text"), TYPES)
def test_type_of_a_frontend(flags, text):
    """The kind of frontend is read off its flags."""
    (record,) = service_records([ServiceRow(ip("10.0.0.1"), 1, 6, 0, flags, 1)], (), {})
    assert service_type(record) == text
    assert next(lb_cells(record))[1].startswith(f"0.0.0.0:0 (1) (0) [{text}")


def test_short_texts_name_the_state_only_when_it_matters():
    """Active backends are just an address."""
    web, six = service_records((WEB, SIX), BACKENDS, {})
    assert [backend_text(one) for one in web["backends"]] == [
        "10.244.2.171:8080", "10.244.2.172:8080(terminating)", "missing-backend-3"
    ]  # fmt: skip
    assert frontend_text(six) == "[fd00::20]:53/UDP/i"
