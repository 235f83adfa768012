"""fwd on two virtual machines, as a user would have it: `make vmtest`.

    python -m tests.vm --package FILE [--out FOLDER]

Builds an image (once), boots it twice under qemu, follows README.md's "Two hosts" in them and then
disturbs what runs. Prints a row a check; console logs, journals and results stay in the folder.
Exit 1 if a row failed, 2 if it cannot be run here. As root.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.lines import context
from tests.vm.image import SUITE, image
from tests.vm.install import follow_readme, remove
from tests.vm.machine import Guest, accelerator
from tests.vm.report import TABLE, Abandoned, Report
from tests.vm.restart import reboot, restarts
from tests.vm.service import unit
from tests.vm.traffic import pods_talk, probes
from tests.vm.world import World

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("mmdebstrap", "mke2fs", "qemu-system-x86_64", "setpriv", "timeout")
STORIES = (follow_readme, pods_talk, probes, restarts, unit, reboot, remove)


def obstacle() -> str | None:
    """Why it cannot be run here, if so."""
    if os.geteuid() != 0:
        return "needs root for the image"
    found = platform.freedesktop_os_release().get("VERSION_CODENAME")
    if found != SUITE:
        return f"the package is for this machine's {found}, the image is {SUITE}"
    if platform.machine() != "x86_64":
        return "the image is for x86-64"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)} (make vmtest)" if missing else None


def run(package: Path, out: Path) -> list[str]:
    """Run all stories; returns what failed, in words."""
    report = Report(out, context("tests.vm"))
    guests: list[Guest] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fwd-vm-") as sockets:
        try:
            with report.check("boot", "the image is there", vital=True) as row:
                made = image(ROOT / ".build/vmtest/image")
                accel = accelerator(made)
                row.figure = f"{made.disk.stat().st_blocks // 2048} MB, runs with {accel}"
            with report.check("boot", "both machines are up, systemd says running", vital=True):
                for name in ("node1", "node2"):
                    guests += [Guest(name, made, out, Path(sockets), accel)]
                for guest in guests:
                    guest.wait()
            world = World(*guests, report=report, package=package)
            for story in STORIES:
                story(world)
        except Abandoned as why:
            print(f"given up: {why}")
        finally:
            for guest in guests:
                guest.keep_journal()
                guest.close()
    report.finish()
    print(f"{len(report.rows)} rows, {time.monotonic() - began:.0f} s")
    return [f"{row.story}: {row.what}: {row.figure}" for row in report.failed()]


def main() -> None:
    """Run, and say where everything is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--package", type=Path, required=True, help="what `make deb` made")
    parser.add_argument("--out", type=Path, default=ROOT / ".build/vmtest/run")
    parser.add_argument("--where-possible", action="store_true", help="else exit 0, not 2")
    options = parser.parse_args()
    if (why := obstacle()) is not None:
        sys.stderr.write(f"vmtest: not run: {why}\n")
        sys.exit(0 if options.where_possible else 2)
    out = options.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    failed = run(options.package.resolve(), out)
    print(f"table, results, console logs and journals: {out} ({TABLE} first)")
    for line in failed:
        print(f"FAILED {line}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
