"""Fields: types, lines, and errors that say what to write."""

from __future__ import annotations

import pytest

from fwd.manifest.reader import ManifestError, read_documents


def field(text):
    """The one document of a text."""
    (found,) = read_documents(text, "m.yaml")
    return found


def child(text):
    """The value of key `a`."""
    return field(text).mapping(("a",))["a"]


def test_documents_know_their_lines():
    """Empty documents are none; the others keep their place in the file."""
    found = list(read_documents("---\na: 1\n---\n# nothing\n---\n\nb:\n  c: x\n", "m.yaml"))
    assert [one.line for one in found] == [2, 7]
    assert found[1].mapping(("b",))["b"].mapping(("c",))["c"].line == 8


def test_values_of_every_type():
    """Text, numbers, booleans, lists, labels, addresses."""
    assert child("a: x").text() == "x"
    assert child("a: '1'").text() == "1"
    assert child("a: 2024-01-01T00:00:00Z").text().startswith("2024")
    assert child("a: 80").number(1, 99) == 80
    assert child("a: 0x50").number(1, 99) == 80
    assert child("a: '80'").number_text(1, 99) == 80
    assert child("a: true").boolean() is True
    assert [one.key for one in child("a: [1, 2]").items()] == ["a[0]", "a[1]"]
    assert child("a: {k: v}").labels() == {"k": "v"}
    assert str(child("a: 10.0.0.1").address()) == "10.0.0.1"
    assert str(child("a: 10.0.0.0/8").network()) == "10.0.0.0/8"
    assert [str(one) for one in child("a: [10.0.0.1, 'fd00::1']").addresses()] == [
        "10.0.0.1",
        "fd00::1",
    ]


def test_empty_values_are_absent():
    """`key:` without a value is no key, but still has to be known."""
    assert field("a:\nb: 1").mapping(("a", "b")).keys() == {"b"}


def test_source_is_the_text_of_the_document():
    """What a document says, without its neighbours."""
    one, other = read_documents("a: 1\n---\na: 2\n", "m.yaml")
    assert one.source() != other.source()
    assert one.source() == next(read_documents("a: 1\n---\nb: 2\n", "x.yaml")).source()


def test_an_anchor_bomb_costs_nothing():
    """Aliases of aliases are read only where somebody looks."""
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    assert field("\n".join(lines)).mapping((), [f"a{i}" for i in range(60)]) == {}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: child("a: 1").text(), "m.yaml:1: a: '1' has the wrong type, write text"),
        (lambda: child("a: x").number(1, 9), "a: 'x' has the wrong type, write a whole"),
        (lambda: child("a: 70000").number(1, 65535), "a: 70000 is out of range, write 1 to"),
        (lambda: child("a: http").number_text(1, 9), "a: 'http' is a name: not implemented"),
        (lambda: child("a: yes").boolean(), "a: 'yes' has the wrong type, write true or"),
        (lambda: child("a: 1").items(), "a: '1' has the wrong type, write a list"),
        (lambda: child("a: [1]").labels(), "a: a list has the wrong type, write a mapping"),
        (lambda: child("a: {k: 1}").labels(), "a.k: '1' has the wrong type, write text"),
        (lambda: child("a: 1.2.3").address(), "a: '1.2.3' is not an IP address, write"),
        (lambda: child("a: 10.0.0.1/8").network(), "a: '10.0.0.1/8' has bits set behind"),
        (lambda: child("a: [10.0.0.1, 10.0.0.1]").addresses(), "a[1]: 10.0.0.1 is in the"),
        (lambda: child("a: TCPP").choice("TCP", "UDP"), "a: 'TCPP' is not known here, did"),
        (lambda: child("a: x").choice("TCP", "UDP"), "a: 'x' is not known here, write TCP"),
        (lambda: field("selecter: 1").mapping(("selector",)), "did you mean 'selector'?"),
        (lambda: field("zzz: 1").mapping(("a", "b")), "m.yaml:1: zzz: unknown field, here:"),
        (lambda: field("a: 1").mapping((), (), {"a": "magic"}), "a: magic: not implemented"),
        (lambda: field("a: 1\na: 2").mapping(("a",)), "m.yaml:2: a: stands on line 1 alre"),
        (lambda: field("a: [}"), "m.yaml:1: not YAML: "),
        (lambda: field("[" * 5000), "m.yaml:1: nested too deeply"),
        (lambda: field("a: \x01"), "m.yaml:1: not YAML: "),
    ],
)
def test_errors_have_place_and_advice(call, error):
    """Each mistake is one line with its place and what to write instead."""
    with pytest.raises(ManifestError) as caught:
        call()
    assert error in str(caught.value)
