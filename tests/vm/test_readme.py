"""The documents' commands are found, and filled in as they say."""

from __future__ import annotations

import pytest

from tests.vm.readme import blocks, pod_unit, two_hosts

TEXT = """\
# A

Words.

    one      # said of it
    sed 's/#/x/'

    two

More.

    three

## B

    four
"""


def test_blocks_end_with_words_and_headings():
    """Empty lines do not end one; comments are no commands, a # in a word is."""
    assert blocks(TEXT, "A") == [["one", "sed 's/#/x/'", "two"], ["three"]]
    assert blocks(TEXT, "B") == [["four"]]
    with pytest.raises(LookupError, match="no heading 'C'"):
        blocks(TEXT, "C")


def test_two_hosts_is_typed_with_the_addresses_swapped():
    """Nothing else differs between the hosts but the node file and the namespace."""
    typed = two_hosts()
    assert "sed -i 's/192.168.56.105/172.31.7.1/; s/192.168.56.106/172.31.7.2/'" in typed.first[2]
    assert typed.first[2] == typed.second[2]
    assert ("node1.yaml" in typed.first[1], "node2.yaml" in typed.second[1]) == (True, True)
    assert (typed.first[3], typed.second[3]) == ("ip netns add curl", "ip netns add nginx")
    assert "ADDRESS" not in "".join(typed.first + typed.second)
    assert typed.fetch.startswith("ip netns exec curl curl http://")


def test_pod_unit_comes_from_the_manual():
    """It makes the namespace before the daemon looks for it."""
    assert "Before=fwd.service" in pod_unit()
    assert "ip netns add %i" in pod_unit()
