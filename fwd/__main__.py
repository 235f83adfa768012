"""``python -m fwd`` and the console script: the command line, or first of all the packets."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; a daemon with something to take over loads it only after that."""
    if sys.argv[1:2] == ["run"] and "LISTEN_FDS" in os.environ:
        from fwd.cli.early import main as main_early  # noqa: PLC0415

        main_early(sys.argv[1:])
    from fwd.cli.main import main as main_cli  # noqa: PLC0415

    main_cli()


if __name__ == "__main__":
    main()
