"""POST /v1/manifests: the body, and that an order is all or nothing."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from fwd.api.client import ApiError, Client
from fwd.api.manifests import parse_order

POLICY = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: NAMESPACE}
spec: {endpointSelector: {}, egressDeny: [{toEntities: [all]}]}
"""


def test_body_names_action_and_files():
    """The namespace may be left out."""
    body = {"action": "delete", "files": [{"name": "a", "text": "b"}]}
    files, delete = parse_order(json.dumps(body).encode())
    assert (files[0].name, files[0].text, files[0].namespace, delete) == ("a", "b", "default", True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"action": "apply", "files": []}',
        b'{"action": "replace", "files": [{"name": "a", "text": ""}]}',
        b'{"action": "apply", "files": [{"name": "a"}]}',
        b'{"action": "apply", "files": [{"name": "a", "text": 1}]}',
        b'{"action": "apply", "files": [{"name": "a", "text": "", "mode": ""}]}',
    ],
)
def test_other_bodies_are_refused(body):
    """With the form that is meant."""
    with pytest.raises(web.HTTPBadRequest) as caught:
        parse_order(body)
    assert "the body is" in caught.value.text


def order(client, action, *texts):
    """Send files called 0.yaml, 1.yaml, ..."""
    files = [{"name": f"{n}.yaml", "text": text} for n, text in enumerate(texts)]
    return client.post("/v1/manifests", {"action": action, "files": files})


def test_order_changes_the_daemon(lab):
    """An applied policy denies, a reload keeps it, a delete takes it back."""
    (name,) = lab.agent.world.names.values()
    text = POLICY.replace("NAMESPACE", name.partition("/")[0])
    with Client(lab.socket) as client:
        report = order(client, "apply", text)
        assert report["objects"][0]["action"] == "created"
        assert lab.send().drop == 181
        client.post("/v1/reload")
        assert lab.send().drop == 181
        rules = [one["rule"] for one in client.rows(f"/v1/policy/{name}")]
        assert f"{name.partition('/')[0]}/p" in [one.get("policy") for one in rules]
        order(client, "delete", text)
        assert lab.send().drop == 0


def test_refused_order_changes_nothing(lab):
    """One bad file of two: neither counts, the error has its place."""
    revision = lab.agent.dp.generation
    with Client(lab.socket) as client:
        text = POLICY.replace("NAMESPACE", "default")
        with pytest.raises(ApiError, match=r"nothing was changed: 1.yaml:4: spec.endpoints"):
            order(client, "apply", text, text.replace("endpointSelector", "endpointsSelector"))
    assert lab.agent.dp.generation == revision
    assert lab.agent.source.extra == ()


def test_identities_are_listed(lab):
    """Reserved ones and those of labels."""
    with Client(lab.socket) as client:
        found = {one["identity"]: one["labels"] for one in client.rows("/v1/identity")}
    assert found[2] == ["reserved:world"]
    assert "k8s:app=curl" in found[25001]
