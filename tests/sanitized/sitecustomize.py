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

if PATH:
    del os.environ["LD_PRELOAD"]
    spec = importlib.util.spec_from_file_location(NAME, PATH)
    if spec is None or spec.loader is None:
        raise SystemExit(f"FWD_TEST_EXTENSION={PATH} is no loadable extension: run make asan")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[NAME] = module
