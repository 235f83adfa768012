"""The units as systemd's own tools judge them; nothing here needs systemd to run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
EXPOSURE_MAX = 2.0

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not installed: make packages",
)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on files."""
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_exposure_stays_low(unit):
    """`systemd-analyze security` finds at most 2.0 of 10 exposed."""
    done = analyze("security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE_MAX, done.stdout


def test_exposure_is_really_measured(tmp_path):
    """The same command on a unit without hardening is far above the limit."""
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    done = analyze("security", "--offline=true", "--no-pager", bare)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found
    assert float(found[1]) > 9


def installed(unit: Path, directory: Path) -> Path:
    """A copy whose program and man pages exist here."""
    text = unit.read_text().replace("/usr/bin/fwd", "/bin/true")
    copy = directory / unit.name
    copy.write_text(re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE))
    return copy


def test_systemd_understands_every_line(tmp_path):
    """Neither unknown keys nor wrong values, in this machine's systemd (252 on Debian 12)."""
    units = sorted([*SERVICES, *UNITS.glob("*.socket")])
    done = analyze("verify", *[installed(unit, tmp_path) for unit in units])
    assert (done.returncode, done.stderr) == (0, "")
    assert len(units) == 4


def test_a_wrong_line_would_be_told(tmp_path):
    """The check above can fail."""
    unit = installed(UNITS / "fwd.service", tmp_path)
    unit.write_text(unit.read_text() + "\n[Service]\nProtectEverything=yes\n")
    assert "ProtectEverything" in analyze("verify", unit).stderr


def test_daemon_has_one_capability_and_never_enters_a_namespace():
    """What the door is for."""
    text = (UNITS / "fwd.service").read_text()
    assert re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.MULTILINE) == ["CAP_NET_ADMIN"]
    assert re.findall(r"^AmbientCapabilities=(.*)$", text, re.MULTILINE) == ["CAP_NET_ADMIN"]
    assert "RestrictNamespaces=yes" in text
    assert "User=fwd" in text


@pytest.mark.parametrize(("file", "socket"), [("fwd.socket", "api"), ("fwd-door.socket", "door")])
def test_sockets_have_the_names_the_daemon_looks_for(file, socket):
    """FileDescriptorName is what LISTEN_FDNAMES says (fwd/control/listen_fds.py)."""
    text = (UNITS / file).read_text()
    assert f"FileDescriptorName={socket}\n" in text
    reader, how = {
        "api": ("fwd/control/revive.py", 'API = "api"'),
        "door": ("fwd/cli/daemon.py", 'take().get("door"'),
    }[socket]
    assert how in (ROOT / reader).read_text()
