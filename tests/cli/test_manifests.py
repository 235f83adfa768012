"""`fwd apply`, `fwd delete`, `fwd identity list`."""

from __future__ import annotations

import io
import json

from tests.cli.invoke import fwd

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec: {}\n"


def test_apply_and_delete(lab, tmp_path):
    """One line an object, then what changed; objects without namespace are in --namespace."""
    file = tmp_path / "web.yaml"
    file.write_text(POD)
    ran = fwd("apply", "-n", "red", "-f", str(file), socket=lab.socket)
    assert (ran.code, ran.out) == (0, "pod/red/web created\nrevision 2\n")
    ran = fwd("apply", "-n", "red", "-f", str(file), "-o", "json", socket=lab.socket)
    assert json.loads(ran.out)["objects"] == [
        {"kind": "Pod", "name": "red/web", "action": "unchanged"}
    ]
    listed = fwd("identity", "list", socket=lab.socket)
    assert "k8s:app=web" in listed.out
    assert listed.out.startswith("ID ")
    ran = fwd("delete", "-n", "red", "-f", str(file), socket=lab.socket)
    assert ran.out.startswith("pod/red/web deleted\n")
    ran = fwd("delete", "-n", "red", "-f", str(file), socket=lab.socket)
    assert (ran.code, ran.err) == (
        1,
        f"fwd: nothing was changed: {file}:1: Pod red/web was not applied, remove it here\n",
    )


def test_stdin_and_unreadable_files(lab, tmp_path, monkeypatch):
    """`-` is stdin; a file that is not there is named before anything is sent."""
    monkeypatch.setattr("sys.stdin", io.StringIO(POD))
    assert fwd("apply", "-f", "-", socket=lab.socket).out.startswith("pod/default/web created")
    missing = tmp_path / "none.yaml"
    ran = fwd("apply", "-f", str(missing), socket=lab.socket)
    assert (ran.code, ran.err) == (
        1,
        f"fwd: reading {missing}: No such file or directory, check the path\n",
    )
    missing.write_bytes(b"\xff")
    assert "not UTF-8 at byte 0" in fwd("apply", "-f", str(missing), socket=lab.socket).err
