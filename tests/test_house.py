"""The house rules, run as tests: sizes, names, generated files, one-way imports, linters."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CSRC, FWD, TESTS = ROOT / "csrc", ROOT / "fwd", ROOT / "tests"
GENERATED = {FWD / "model/enums.py"}
C_FILES = sorted(CSRC.rglob("*.c"))
HEADERS = sorted(CSRC.rglob("*.h"))
PROGRAMS = sorted(path for room in ("fuzz", "faults") for path in (TESTS / room).glob("*.[ch]"))
PY_FILES = sorted(p for room in ("fwd", "csrc") for p in (ROOT / room).rglob("*.py"))
STRICT = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wshadow", "-Wconversion"]
STRICT += ["-Wstrict-prototypes", "-Wvla", "-Werror"]

TOP_LEVEL = {
    "pyproject.toml", "fwd", "csrc", "systemd", "tests", "configs", "README.md", "LICENSE",
    "CHANGELOG.md", "Makefile", "docs", "benchmarks", ".ci", ".gitignore", ".clang-format",
    ".clang-tidy", ".editorconfig", ".gitattributes",
}  # fmt: skip

# Files whose tests have another name, and why.
MIRRORED_ELSEWHERE: dict[str, str] = {
    "csrc/unity.c": "includes the others",
    "fwd/__main__.py": "two lines over cli/main.py",
    "fwd/datapath/convert.py": "test_tables.py: every row crosses both ways",
    "fwd/datapath/convert_outside.py": "test_tables.py: every row crosses both ways",
    "fwd/datapath/convert_packet.py": "test_binding.py and every path row",
    "fwd/datapath/errors.py": "classes without code",
    "fwd/datapath/packet.py": "values without code",
    "fwd/model/manifest.py": "values without code",
    "fwd/model/rows.py": "values without code",
}

# Reasons that no packet can reach yet, so no path row can show them.
UNREACHABLE: dict[str, str] = {}

OUTSIDE = re.compile(
    r"\b(read|write|readv|writev|pread|pwrite|open|close|ioctl|mmap|munmap|ftruncate|socket|send"
    r"|sendto|sendmsg|sendmmsg|recv|recvfrom|recvmsg|recvmmsg|epoll_\w+|poll|select|malloc|calloc"
    r"|realloc|free|alloca|clock_gettime|gettimeofday|time|rand|random|rand_r|getrandom|printf"
    r"|fprintf|usleep|nanosleep)\s*\("
)


def run(*command: str | Path) -> None:
    """Run a tool at the top of the tree; its output is the failure."""
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}{done.stderr}"


def tool(name: str) -> str:
    """A tool of this interpreter's environment."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found is not None, f"{name} is not installed: pip install -e .[dev]"
    return found


def relative(paths: list[Path]) -> list[str]:
    """Test ids."""
    return [str(p.relative_to(ROOT)) for p in paths]


def without_comments(source: str) -> str:
    """C source with comments and strings blanked, line numbers kept."""
    pattern = r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\])*\""
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), source, flags=re.DOTALL)


def c_functions(path: Path) -> list[tuple[str, int]]:
    """(name, lines) of every function; the house writes their braces in column 0."""
    found, start = [], 0
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if line == "{":
            start = number
        elif line == "}" and start:
            found.append((f"{path.relative_to(ROOT)}:{start + 1}", number - start + 1))
            start = 0
    return found


def py_functions(path: Path) -> list[tuple[str, int]]:
    """(name, lines) of every function, docstring excluded."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            doc = ast.get_docstring(node, clean=False) is not None
            docs = (first.end_lineno or 0) - first.lineno + 1 if doc else 0
            lines = (node.end_lineno or 0) - node.lineno + 1 - docs
            found.append((f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", lines))
    return found


def test_files_keep_their_size_budget():
    """No .c is longer than 450 lines and no .py longer than 350."""
    over = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for paths, most in ((C_FILES + HEADERS + PROGRAMS, 450), (PY_FILES, 350))
        for path in paths
        if path not in GENERATED | {CSRC / "abi.h"}
        and (lines := len(path.read_text().splitlines())) > most
    ]
    assert not over


@pytest.mark.parametrize(("room", "reader"), [("C", c_functions), ("Python", py_functions)])
def test_functions_are_short(room, reader):
    """No function is longer than 80 lines and 92 in 100 are not longer than 40."""
    functions = [item for path in (C_FILES if room == "C" else PY_FILES) for item in reader(path)]
    assert functions, f"found no {room} function: the reader is broken"
    assert [item for item in functions if item[1] > 80] == []
    long = [item for item in functions if item[1] > 40]
    assert len(long) <= 0.08 * len(functions), long


@pytest.mark.parametrize("header", HEADERS, ids=relative(HEADERS))
def test_header_stands_alone(header):
    """A header compiles without anything included before it."""
    run("gcc", *STRICT, "-Wno-unused", f"-I{CSRC}", "-fsyntax-only", "-x", "c", header)


@pytest.mark.parametrize("source", C_FILES, ids=relative(C_FILES))
def test_c_file_compiles_alone_without_a_warning(source):
    """Each .c is a translation unit of its own for linters and fuzzers."""
    run("gcc", *STRICT, "-Wno-unused-function", "-O1", f"-I{CSRC}", "-c", source, "-o", "/dev/null")


@pytest.mark.parametrize("source", PROGRAMS, ids=relative(PROGRAMS))
def test_program_of_the_tests_compiles_without_a_warning(source):
    """Fuzz targets need clang to run, but not to be kept whole; nor do the tools of faults."""
    flags = ["-Wno-unused-function", "-x", "c", "-O1", f"-I{CSRC}", f"-I{TESTS / 'fuzz'}"]
    run("gcc", *STRICT, *flags, "-c", source, "-o", "/dev/null")


def test_datapath_has_no_syscall_clock_or_allocation():
    """Outside csrc/io and arena.c no C file reaches out of its arguments."""
    offenders = []
    for path in C_FILES + HEADERS:
        if "io" in path.relative_to(CSRC).parts or path.name in {"arena.c", "abi.h"}:
            continue
        for number, line in enumerate(without_comments(path.read_text()).splitlines(), 1):
            if OUTSIDE.search(line):
                offenders.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not offenders


def test_only_the_binding_imports_the_extension():
    """Every other module of the daemon goes through fwd.datapath.binding."""
    importers = [
        str(path.relative_to(ROOT))
        for path in FWD.rglob("*.py")
        if re.search(r"^\s*(from|import)\b.*\b_fwd\b", path.read_text(), re.MULTILINE)
    ]
    assert importers == ["fwd/datapath/binding.py"]


def test_generated_files_are_fresh():
    """The .def rows and what was generated from them agree."""
    run(sys.executable, "csrc/gen.py", "--check")


def test_top_level_holds_only_what_the_design_names():
    """No stray file or folder is committed at the top."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    entries = {line.split("/")[0] for line in listing.stdout.splitlines()}
    assert entries <= TOP_LEVEL, sorted(entries - TOP_LEVEL)


def test_tests_mirror_the_tree():
    """Every source file has its test file, and every test file its source."""
    missing = []
    for path in C_FILES + PY_FILES:
        name = str(path.relative_to(ROOT))
        if name in MIRRORED_ELSEWHERE or path.name == "__init__.py" or path in GENERATED:
            continue
        room = TESTS / path.relative_to(ROOT if "csrc" in path.parts else FWD).parent
        if not list(room.glob(f"test_{path.stem}.py")) + list(room.glob(f"test_{path.stem}_*.py")):
            missing.append(name)
    assert not missing, "no test file"


def test_every_drop_reason_has_a_row():
    """Each reason of the .def file is expected by some row of the path or I/O tests."""
    rows = "".join(
        path.read_text()
        for room in ("csrc/path", "csrc/io", "scenarios", "netns")
        for path in (TESTS / room).rglob("*")
        if path.suffix in {".py", ".yaml", ".json", ".jsonl"}
    )
    listed = (CSRC / "drop_reasons.def").read_text()
    reasons = re.findall(r"^DROP\(\d+, (\w+),", listed, re.MULTILINE)
    without = {name for name in reasons if not re.search(rf"\b{name}\b", rows)}
    assert without - set(UNREACHABLE) == set()
    assert set(UNREACHABLE) <= without, "a row reaches it now: take it off UNREACHABLE"


def test_ruff():
    """Lint and format are clean."""
    run(tool("ruff"), "check", ".")
    run(tool("ruff"), "format", "--check", ".")


def test_mypy():
    """The daemon is fully typed."""
    run(tool("mypy"), "fwd")


def test_imports_go_one_way():
    """The layers of pyproject.toml hold."""
    run(tool("lint-imports"))
