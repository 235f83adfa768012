"""Rules as values."""

from __future__ import annotations

from dataclasses import fields

from fwd.model.policy import PortRange, Rule


def test_port_ranges_print_as_they_are_written():
    """One port prints alone, more print with a dash."""
    assert [str(PortRange(80, 80)), str(PortRange(8080, 8095))] == ["80", "8080-8095"]


def test_rule_json_has_every_field():
    """The JSON object of a rule has its fields by name, with their values."""
    rule = Rule("rule", 3, "w.yaml", 17, "a", "egress", "deny", "any", "tcp", "80")
    assert rule.as_json() == {field.name: getattr(rule, field.name) for field in fields(rule)}
