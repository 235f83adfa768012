"""Build the fuzz targets and run them: `make fuzz`, and the smoke test of the suite.

clang's libFuzzer with ASan and UBSan, all of it below .build/fuzz: ``bin``, ``corpus`` (seeds),
``found`` (what earlier runs kept), ``crashes`` (inputs to reproduce: bin/TARGET FILE).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # as a script; pytest has it there already

from tests.fuzz.seeds import TARGETS, write_seeds  # noqa: E402

__all__ = ["CLANG", "JOBS", "Ran", "build", "report", "run"]

HERE, WORK = ROOT / "tests/fuzz", ROOT / ".build/fuzz"
CLANG = shutil.which("clang") or shutil.which("clang-14")
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-fno-sanitize-recover=all",
         "-fno-omit-frame-pointer", f"-I{ROOT / 'csrc'}", f"-I{HERE}"]  # fmt: skip
SHARED = ("world", "oracle")
MAX_LEN = 4096
JOBS = 2
STOP_S = 60
"""A run that does not end this long after its time hangs."""


@dataclass(frozen=True)
class Ran:
    """What one target did."""

    target: str
    executions: int
    code: int
    log: str


def build() -> None:
    """Compile what is older than its sources.

    Raises:
        subprocess.CalledProcessError: clang says no; its words are on stderr.
    """
    (WORK / "bin").mkdir(parents=True, exist_ok=True)
    sources = [*(ROOT / "csrc").rglob("*.[ch]"), *(ROOT / "csrc").glob("*.def"), *HERE.glob("*.h")]
    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(lambda name: _compile(name, sources), SHARED))
        list(pool.map(_link, TARGETS))


def _compile(name: str, sources: list[Path]) -> None:
    source, product = HERE / f"{name}.c", WORK / f"{name}.o"
    if _older(product, [source, *sources]):
        _clang("-fsanitize=fuzzer-no-link,address,undefined", "-c", source, "-o", product)


def _link(target: str) -> None:
    source, binary = HERE / f"fuzz_{target}.c", WORK / "bin" / target
    objects = [WORK / f"{name}.o" for name in SHARED]
    if _older(binary, [source, *objects]):
        _clang("-fsanitize=fuzzer,address,undefined", source, *objects, "-o", binary)


def _older(product: Path, sources: list[Path]) -> bool:
    if not product.exists():
        return True
    made = product.stat().st_mtime
    return any(source.stat().st_mtime >= made for source in sources)


def _clang(*arguments: object) -> None:
    subprocess.run([str(CLANG), *FLAGS, *map(str, arguments)], check=True)


def run(target: str, seconds: int, *, found: Path, seed: int = 0) -> Ran:
    """Run one target for a time.

    Args:
        target: one of TARGETS.
        seconds: how long.
        found: directory for inputs that reach something new; read as well.
        seed: of the mutations; the same one takes the same way, 0 = another way each time.
    """
    crashes = WORK / "crashes"
    for directory in (crashes, found):
        directory.mkdir(parents=True, exist_ok=True)
    command = [WORK / "bin" / target, f"-max_total_time={seconds}", f"-max_len={MAX_LEN}",
               f"-seed={seed}",
               "-timeout=10", "-print_final_stats=1", f"-artifact_prefix={crashes}/{target}-",
               found, WORK / "corpus" / target]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), cwd=WORK, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        timeout=seconds + STOP_S,
    )  # fmt: skip
    count = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stdout)
    return Ran(target, int(count[1]) if count else 0, done.returncode, done.stdout)


def report(log: str) -> str:
    """What is worth reading of a failed run: not its progress."""
    return "\n".join([line for line in log.splitlines() if not line.startswith("#")][-60:])


def main() -> int:
    """Run every target and print a line for each; 1 when one of them found something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; none = all")
    options = parser.parse_args()
    if CLANG is None:
        sys.stderr.write("needs clang with its runtime: apt-get install clang libclang-rt-dev\n")
        return 2
    build()
    write_seeds(WORK / "corpus")
    failed = False
    with ThreadPoolExecutor(JOBS) as pool:
        chosen = options.targets or TARGETS
        for ran in pool.map(lambda one: run(one, options.seconds, found=WORK / "found" / one),
                            chosen):  # fmt: skip
            sys.stdout.write(f"{ran.target:<10} {ran.executions:>10} executions"
                             f"{'' if ran.code == 0 else '  FAILED'}\n")  # fmt: skip
            sys.stdout.flush()
            if ran.code != 0:
                failed = True
                sys.stdout.write(report(ran.log) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
