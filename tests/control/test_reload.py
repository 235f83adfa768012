"""What a reload refuses, and how it counts what it did."""

from __future__ import annotations

import pytest

from fwd.config.load import ConfigError
from fwd.control.apply import diff
from fwd.control.compile import compile_world
from fwd.control.reload import count_changes, refuse_fixed
from tests.control.worlds import node_file


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"replace": ("name: n1", "name: nx")}, r"world\.yaml:1: node\.name: .*n1 to nx"),
        ({"replace": ("ip: 192.0.2.1\n", "ip: 192.0.2.9\n")}, r"world\.yaml:1: node\.ip"),
        ({"tunnel": "port: 4789"}, r"world\.yaml:\d+: tunnel\.port: .*8472 to 4789"),
        ({"tunnel": "protocol: disabled"}, r"tunnel\.protocol"),
        ({"tunnel": "mtu: 1400"}, r"tunnel\.mtu: .*auto to 1400"),
        ({"api": "socket: /run/other"}, r"api\.socket"),
        ({"metrics": "listen: '127.0.0.1:1'"}, r"metrics\.listen: .*None to 127"),
    ],
)
def test_what_needs_a_restart_is_refused(change, text):
    """The error has file and line, both values, and what to do."""
    with pytest.raises(ConfigError, match=text + r".*restart it"):
        refuse_fixed(node_file(), node_file(**change))


def test_other_changes_are_taken():
    """Endpoints, peers and raw rows may change."""
    refuse_fixed(node_file(), node_file(ipcache="- {prefix: 10.9.0.0/16, identity: 9}"))


def test_changes_are_counted_by_table():
    """Rows added, changed and removed; tables that stay are left out."""
    old = compile_world(node_file(ipcache="- {prefix: 10.9.0.0/16, identity: 9}"))
    new = compile_world(node_file(ipcache="- {prefix: 10.8.0.0/16, identity: 9}"))
    changed = compile_world(node_file(ipcache="- {prefix: 10.9.0.0/16, identity: 8}"))
    assert count_changes(diff(old, new)) == {"ipcache": {"added": 1, "changed": 0, "removed": 1}}
    assert count_changes(diff(old, changed)) == {
        "ipcache": {"added": 0, "changed": 1, "removed": 0}
    }
    assert count_changes(diff(old, old)) == {}
