"""Build the Debian package: dist/fwd_VERSION_ARCH.deb, from this tree and the locked wheels.

The package holds a virtual environment of Debian's own python3 under /usr/lib/fwd with everything
in it, so that it installs without network and without a compiler. Needs the registry once, for the
wheels of requirements.lock; `make deb` calls it with the tree's own .venv.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
UNITS = HERE.parent
WORK = ROOT / ".build" / "deb"
STAGE = WORK / "root"
HOME = "/usr/lib/fwd"
PYTHON = "/usr/bin/python3"
"""Debian's: the venv is of this one, wherever it is built from."""
MAN = ROOT / "docs" / "man"
CONFIGS = ROOT / "configs"
PRUNED = ("*.pyx", "*.pxd", "*.pxi", "*.c", "*.h", "*.hash", "direct_url.json", "RECORD")
"""What no running program reads; RECORD lists files that are gone then."""


def run(*command: str | Path, **options: object) -> str:
    """Run a command, stop at its failure, return what it printed."""
    done = subprocess.run(
        [str(part) for part in command], check=False, text=True, stdout=subprocess.PIPE, **options
    )  # type: ignore[call-overload]
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}")
    return str(done.stdout)


def place(source: Path, target: str, mode: int = 0o644) -> None:
    """Copy a file to its place in the package."""
    path = STAGE / target.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    path.chmod(mode)


def place_text(text: str, target: str, mode: int = 0o644) -> None:
    """Write a file in the package; ``.gz`` is packed."""
    path = STAGE / target.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data, 9, mtime=0) if target.endswith(".gz") else data)
    path.chmod(mode)


def make_venv() -> None:
    """Fill /usr/lib/fwd: Debian's interpreter by link, locked wheels, our own wheel."""
    home = STAGE / HOME.lstrip("/")
    run(PYTHON, "-m", "venv", "--without-pip", home)
    wheels = WORK / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    # A pip of Debian's python3: another one would write its own libraries' path into ours.
    run(PYTHON, "-m", "venv", WORK / "pip")
    pip = [WORK / "pip/bin/python", "-m", "pip", "-q"]
    run(*pip, "wheel", "--no-deps", "-w", wheels, copy_source())
    into = [*pip, "--python", home / "bin/python", "install", "--no-compile", "--no-deps"]
    lock = HERE / "requirements.lock"
    run(*into, "--require-hashes", "--only-binary", ":all:", "-r", lock)
    run(*into, *sorted(wheels.glob("fwd-*.whl")))
    for pattern in PRUNED:
        for path in home.rglob(pattern):
            path.unlink()
    for path in (home / "bin").iterdir():
        if path.name not in {"python", "fwd"}:
            path.unlink()
    for name in ("include", "lib64"):
        path = home / name
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)
    python = home / "bin/python"
    python.unlink()
    python.symlink_to(PYTHON)
    version = interpreter()
    (home / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n"
    )
    script = home / "bin/fwd"
    body = script.read_text().partition("\n")[2]
    script.write_text(f"#!{HOME}/bin/python -I\n{body}")
    for library in home.rglob("*.so*"):
        run("strip", "--strip-unneeded", library)
        library.chmod(0o644)


def copy_source() -> Path:
    """Copy what the wheel is made of: setuptools would take up what an older build left here."""
    source = WORK / "source"
    shutil.rmtree(source, ignore_errors=True)
    leave = shutil.ignore_patterns("__pycache__", "*.so")
    for room in ("csrc", "fwd"):
        shutil.copytree(ROOT / room, source / room, ignore=leave)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return source


def interpreter() -> str:
    """Version of Debian's python3, as 3.11."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return run(PYTHON, "-c", code).strip()


def libc() -> str:
    """The newest glibc that any library in the package asks for."""
    needed = {(2, 17)}
    for library in (STAGE / HOME.lstrip("/")).rglob("*.so*"):
        symbols = run("objdump", "-T", library)
        needed |= {(int(a), int(b)) for a, b in re.findall(r"GLIBC_(\d+)\.(\d+)", symbols)}
    return ".".join(map(str, max(needed)))


def place_files() -> None:
    """Everything beside the program: units, man pages, completion, examples, papers."""
    (STAGE / "usr/bin").mkdir(parents=True)
    (STAGE / "usr/bin/fwd").symlink_to(f"../lib/{Path(HOME).name}/bin/fwd")
    for unit in [*UNITS.glob("*.service"), *UNITS.glob("*.socket")]:
        place(unit, f"/lib/systemd/system/{unit.name}")
    place(UNITS / "sysusers.conf", "/usr/lib/sysusers.d/fwd.conf")
    place(UNITS / "tmpfiles.conf", "/usr/lib/tmpfiles.d/fwd.conf")
    place_text("tun\n", "/usr/lib/modules-load.d/fwd.conf")
    for page in MAN.iterdir():
        place_text(page.read_text(), f"/usr/share/man/man{page.suffix[1:]}/{page.name}.gz")
    place_text(completion(), "/usr/share/bash-completion/completions/fwd")
    for example in sorted(CONFIGS.rglob("*.yaml")):
        place(example, f"/etc/fwd/examples/{example.relative_to(CONFIGS)}")
    (STAGE / "etc/fwd/fwd.yaml.d").mkdir()
    place(HERE / "copyright", "/usr/share/doc/fwd/copyright")
    place(HERE / "lintian-overrides", "/usr/share/lintian/overrides/fwd")
    for name in ("operations.md", "datapath.md", "reasons.md"):
        place_text((ROOT / "docs" / name).read_text(), f"/usr/share/doc/fwd/{name}.gz")


def completion() -> str:
    """The completion for bash, as the command line's library makes it."""
    code = "from typer.completion import get_completion_script as make\n"
    code += "print(make(prog_name='fwd', complete_var='_FWD_COMPLETE', shell='bash'))"
    return run(sys.executable, "-c", code)


def place_control(version: str) -> str:
    """Write the package's own files; returns its architecture."""
    arch = run("dpkg", "--print-architecture").strip()
    stamp = run("date", "-R", "-u", "-d", f"@{os.environ['SOURCE_DATE_EPOCH']}").strip()
    who = "fwd developers <fwd@localhost.localdomain>"
    place_text(
        f"fwd ({version}) unstable; urgency=medium\n\n"
        f"  * Built from the tree; CHANGELOG.md tells what changed.\n\n -- {who}  {stamp}\n",
        "/usr/share/doc/fwd/changelog.gz",
    )
    size = sum(p.stat().st_size for p in STAGE.rglob("*") if p.is_file() and not p.is_symlink())
    major, minor = map(int, interpreter().split("."))
    control = (HERE / "control.in").read_text()
    fields = {
        "VERSION": version, "ARCH": arch, "SIZE": str(size // 1024), "LIBC": libc(),
        "MAINTAINER": who, "PYTHON": f"{major}.{minor}", "PYTHON_NEXT": f"{major}.{minor + 1}",
    }  # fmt: skip
    place_text(re.sub(r"@(\w+)@", lambda match: fields[match[1]], control), "/DEBIAN/control")
    for name in ("postinst", "prerm", "postrm"):
        place(HERE / name, f"/DEBIAN/{name}", 0o755)
    etc = sorted(p for p in (STAGE / "etc").rglob("*") if p.is_file())
    place_text("".join(f"/{p.relative_to(STAGE)}\n" for p in etc), "/DEBIAN/conffiles")
    return arch


def place_sums() -> None:
    """Checksums of all files, for `dpkg --verify`."""
    names = [
        str(path.relative_to(STAGE))
        for path in sorted(STAGE.rglob("*"))
        if path.is_file() and not path.is_symlink() and "DEBIAN" not in path.parts
    ]
    place_text(run("md5sum", *names, cwd=STAGE), "/DEBIAN/md5sums")


def main() -> None:
    """Build, and print the package's path."""
    commit_time = run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip() or "0"
    os.environ.setdefault("SOURCE_DATE_EPOCH", commit_time)
    os.environ.pop("PYTHONPATH", None)  # pip would take this tree for an installed fwd
    os.umask(0o022)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    shutil.rmtree(STAGE, ignore_errors=True)
    STAGE.mkdir(parents=True)
    STAGE.chmod(0o755)
    make_venv()
    place_files()
    arch = place_control(version)
    place_sums()
    target = ROOT / "dist" / f"fwd_{version}_{arch}.deb"
    target.parent.mkdir(exist_ok=True)
    run("dpkg-deb", "--root-owner-group", "-Zxz", "-z3", "--build", STAGE, target)
    print(target.relative_to(ROOT))


if __name__ == "__main__":
    main()
