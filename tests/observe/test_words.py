"""Words for numbers: reasons and rules."""

from __future__ import annotations

import pytest

from fwd.observe.words import drop_name, reason_text, rule_text

RULE = {
    "kind": "rule", "index": 0, "file": "world.yaml", "line": 57, "endpoint": "default/nginx",
    "direction": "ingress", "action": "allow", "identity": 25001, "proto": "tcp", "port": "80",
}  # fmt: skip
SELECTS = {"kind": "selects", "policy": "default/web", "manifest": "NetworkPolicy"}
RULE_TEXT = "allow default/nginx ingress from identity 25001 proto tcp port 80 (world.yaml:57)"


def test_rule_text_of_a_written_rule_names_its_line():
    """The reader can go to the line that decided."""
    assert rule_text(RULE) == RULE_TEXT


def test_rule_text_of_egress_reads_to():
    """Egress rules name where to, ingress rules where from."""
    assert rule_text(RULE | {"direction": "egress"}).startswith(
        "allow default/nginx egress to identity 25001"
    )


def test_rule_text_of_a_manifest_names_policy_and_item():
    """Which policy, which of its rules, and where it stands."""
    text = rule_text(RULE | SELECTS | {"kind": "rule", "index": 2})
    where = f"{RULE['file']}:{RULE['line']}"
    assert text.endswith(f" (NetworkPolicy default/web ingress[2], {where})")
    assert rule_text(RULE | SELECTS).endswith(f" (NetworkPolicy default/web, {where})")
    text = rule_text(RULE | SELECTS | {"kind": "rule", "action": "deny"})
    assert "default/web ingressDeny[0]" in text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "default-allow"}, "default allow: default/nginx enforces no ingress policy"),
        ({"kind": "localhost"}, "localhost: the node reaches default/nginx always"),
        (
            {"kind": "default-deny", "because": [], "nearest": None},
            "default deny: default/nginx ingress, no rule selects it",
        ),
        (
            {"kind": "default-deny", "because": [RULE], "nearest": RULE},
            f"default deny: default/nginx ingress, none of 1 rules allows it; nearest: {RULE_TEXT}",
        ),
        (
            {"kind": "default-deny", "because": [RULE | SELECTS, RULE], "endpoint": "a/b"},
            "default deny: a/b ingress, selected by NetworkPolicy default/web, no rule allows it",
        ),
    ],
)
def test_rule_text_of_implied_rules(change: dict[str, object], text: str):
    """What nobody wrote is explained too."""
    assert rule_text(RULE | change) == text


def test_reason_text_covers_both_ranges():
    """Metric reasons and drop codes share one number space."""
    assert reason_text(0) == "Success"
    assert reason_text(133) == "Policy denied"
    assert reason_text(129) == "reason 129"


def test_drop_name_of_unknown_code():
    """A code of a newer library does not break the reader."""
    assert drop_name(133) == "POLICY_DENIED"
    assert drop_name(138) == "REASON_138"
