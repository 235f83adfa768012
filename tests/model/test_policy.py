"""Rules as values."""

from __future__ import annotations

from dataclasses import fields, replace

from fwd.model.policy import PortRange, Rule


def test_port_ranges_print_as_they_are_written():
    """One port prints alone, more print with a dash."""
    assert [str(PortRange(80, 80)), str(PortRange(8080, 8095))] == ["80", "8080-8095"]


def test_rule_json_has_every_field():
    """The JSON object of a rule has its fields by name; those of manifests where it has them."""
    rule = Rule("rule", 3, "w.yaml", 17, "a", "egress", "deny", "any", "tcp", "80")
    named = replace(rule, policy="default/p", manifest="NetworkPolicy")
    every = {field.name: getattr(named, field.name) for field in fields(named)}
    assert named.as_json() == every
    assert rule.as_json() == {
        key: value for key, value in every.items() if key not in ("policy", "manifest")
    }
