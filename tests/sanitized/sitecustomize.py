"""Put the sanitised build of the extension in place of the installed one, in every Python process.

`make asan` has this folder on PYTHONPATH, names the build in FWD_TEST_EXTENSION and the sanitisers'
runtimes in FWD_TEST_PRELOAD. The suite and the daemons and commands it starts all run that build;
other programs (curl hangs under a preloaded ASan) do not see the runtimes.
"""

from __future__ import annotations

import importlib.util
import os
import sys

NAME = "fwd.datapath._fwd"
PATH, PRELOAD = os.environ.get("FWD_TEST_EXTENSION"), os.environ.get("FWD_TEST_PRELOAD", "")

if PATH and os.environ.get("LD_PRELOAD") != PRELOAD:
    os.environ["LD_PRELOAD"] = PRELOAD  # the runtimes must be there before anything else is loaded
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves


class _Finder:
    """Answers for the one module; loads it when somebody imports it, not before."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> object:
        return importlib.util.spec_from_file_location(NAME, PATH) if name == NAME else None


if PATH:
    del os.environ["LD_PRELOAD"]
    sys.meta_path.insert(0, _Finder)
