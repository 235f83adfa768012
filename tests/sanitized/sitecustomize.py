"""Put another build of the extension in place of the installed one, in every Python process.

`make asan` has this folder on PYTHONPATH and names the sanitised build in FWD_TEST_EXTENSION, so
that the suite and the daemons and commands it starts all run it.
"""

from __future__ import annotations

import importlib.util
import os
import sys

NAME = "fwd.datapath._fwd"
PATH = os.environ.get("FWD_TEST_EXTENSION")

if PATH:
    spec = importlib.util.spec_from_file_location(NAME, PATH)
    if spec is None or spec.loader is None:
        raise SystemExit(f"FWD_TEST_EXTENSION={PATH} is no loadable extension: run make asan")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[NAME] = module
