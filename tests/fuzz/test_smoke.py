"""Every fuzz target for seconds, in CI for a minute: from its seeds, and it finds nothing."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.campaign import CLANG, WORK, build, report, run
from tests.fuzz.seeds import TARGETS, write_seeds

SECONDS = int(os.environ.get("FUZZ_SECONDS", "60" if os.environ.get("CI") else "5"))
SEED = 1
"""The suite goes the same way every time; `make fuzz` goes new ones."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CLANG is None, reason="no clang: apt-get install clang libclang-rt-dev"),
    pytest.mark.skipif(
        "FWD_TEST_PRELOAD" in os.environ, reason="the targets have sanitizers of their own"
    ),
]


@pytest.fixture(scope="module")
def seeded():
    """Fresh binaries and the number of seeds a target starts from."""
    build()
    return write_seeds(WORK / "corpus")


@pytest.mark.parametrize("target", TARGETS)
def test_target_finds_nothing(seeded, target, tmp_path):
    """No sanitizer report, no broken promise of the oracle, and it did run."""
    assert seeded[target] > 2
    ran = run(target, SECONDS, found=tmp_path, seed=SEED)
    print(f"{target}: {ran.executions} executions in {SECONDS} s")
    assert ran.code == 0, report(ran.log)
    assert ran.executions > seeded[target]
