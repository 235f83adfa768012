"""Nodes: the two parsers agree, every node knows its place, and no nesting exhausts a stack."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.cyaml import CParser
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scanner import Scanner

from fwd.manifest.load import parse_file
from fwd.manifest.nodes import MAX_DEPTH, DepthError, List, Map, Scalar, _Composer, compose
from fwd.manifest.reader import ManifestError

SCALARS = st.one_of(
    st.text(max_size=12), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=20,
)


def plain(node: Any) -> Any:
    """A node without its end, where the parsers may differ by the blanks behind it."""
    if isinstance(node, Scalar):
        return node.tag, node.line, node.start, node.value
    if isinstance(node, List):
        return node.tag, node.line, node.start, [plain(one) for one in node.value]
    return node.tag, node.line, node.start, [(plain(k), plain(v)) for k, v in node.value]


def test_libyaml_is_installed():
    """It comes with fwd; without it manifests are read ten times slower."""
    assert CParser is not None


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=3), st.booleans())
def test_both_parsers_make_the_same_nodes(values, flow):
    """Tags, lines, places and values, whatever the documents hold."""
    out = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = flow
    yaml.dump_all(values, out)
    text = out.getvalue()
    try:
        slow = list(_Composer().documents(YAML(pure=True).parse(text)))
    except YAMLError:
        reject()  # ruamel does not read all that it writes
    found = list(compose(text))
    assert [plain(node) for node in found] == [plain(node) for node in slow]
    assert len(found) == len(values)


def test_a_usual_file_is_read_by_libyaml_alone(monkeypatch):
    """The scanner of ruamel's own parser is not asked for anything."""
    monkeypatch.delattr(Scanner, "fetch_more_tokens")
    text = "apiVersion: v1\nkind: Pod\nspec: {ports: [1, 'x', \"y\"]} # why\n---\n- |\n a\n"
    assert [node.line for node in compose(text)] == [1, 5]


def test_nodes_know_their_text():
    """Start and end count characters, not bytes."""
    text = "é: ü\n---\n- ß: [1, 'ö']\n- x\n"
    first, second = compose(text)
    assert isinstance(first, Map)
    assert isinstance(second, List)
    (pair,) = first.value
    assert [text[one.start : one.end] for one in pair] == ["é", "ü"]
    assert text[second.start : second.end].startswith("- ß: [1, 'ö']\n- x")
    assert second.line == 3


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "a:\n"])
def test_deep_nesting_is_refused_with_its_line(opening):
    """A hundred thousand levels, closed or not, are an error, not a crash."""
    lines = [opening] * 100_000 if opening != "a:\n" else []
    text = "# deep\n" + ("".join(lines) or "".join(f"{' ' * n}a:\n" for n in range(1000)))
    with pytest.raises(DepthError) as caught:
        list(compose(text))
    assert caught.value.line == (2 if opening != "a:\n" else 2 + MAX_DEPTH)


def test_what_only_the_slow_parser_takes_is_taken_from_where_the_fast_one_stopped():
    """An anchor written twice in the third document: each document comes once."""
    text = "a: 1\n---\nb: 2\n---\nc: &x 1\nd: &x 2\ne: *x\n"
    third = list(compose(text))[2]
    assert len(list(compose(text))) == 3
    assert isinstance(third, Map)
    assert [value.value for _, value in third.value] == ["1", "2", "2"]


def test_documents_before_an_error_come_first():
    """Whoever reads one by one gets the good ones, then the error with its line."""
    found = compose("a: 1\n---\nb: [\n")
    assert next(found).line == 1
    with pytest.raises(YAMLError):
        next(found)


def test_an_old_document_is_read_by_its_own_rules():
    """YAML 1.1 says so in the file, and then `yes` is a boolean."""
    (old,) = compose("%YAML 1.1\n---\na: yes\n")
    (new,) = compose("a: yes\n")
    assert old.value[0][1].tag.endswith(":bool")
    assert new.value[0][1].tag.endswith(":str")


def test_a_list_of_itself_is_refused():
    """An alias may lead back to where it stands; nobody follows it for ever."""
    text = "&a\napiVersion: v1\nkind: List\nitems: [*a]\n"
    with pytest.raises(ManifestError, match=r"m\.yaml:1: items\[0\].*: nested too deeply"):
        parse_file(text, "m.yaml")
