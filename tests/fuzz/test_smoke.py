"""Every fuzz target for seconds, in CI for a minute: from its seeds, and it finds nothing."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fuzz.campaign import CLANG, JOBS, WORK, build, report, run
from tests.fuzz.seeds import TARGETS, write_seeds

SECONDS = int(os.environ.get("FUZZ_SECONDS", "60" if os.environ.get("CI") else "5"))
SEED = 1
"""The suite goes the same way every time; `make fuzz` goes new ones."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(SECONDS * len(TARGETS) + 300),  # all run in the first one's set-up
    pytest.mark.skipif(CLANG is None, reason="no clang: apt-get install clang libclang-rt-dev"),
    pytest.mark.skipif(
        "FWD_TEST_PRELOAD" in os.environ, reason="the targets have sanitizers of their own"
    ),
]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """Fresh binaries; the seeds each target starts from, and what it did, two at a time."""
    build()
    seeds = write_seeds(WORK / "corpus")
    found = tmp_path_factory.mktemp("found")
    with ThreadPoolExecutor(JOBS) as pool:
        all_ran = pool.map(lambda one: run(one, SECONDS, found=found / one, seed=SEED), TARGETS)
        return seeds, dict(zip(TARGETS, all_ran, strict=True))


@pytest.mark.parametrize("target", TARGETS)
def test_target_finds_nothing(campaign, target):
    """No sanitizer report, no broken promise of the oracle, and it did run."""
    seeded, all_ran = campaign
    ran = all_ran[target]
    assert seeded[target] > 2
    print(f"{target}: {ran.executions} executions in {SECONDS} s")
    assert ran.code == 0, report(ran.log)
    assert ran.executions > seeded[target]
