"""``python -m fwd``: the command line without the console script."""

from fwd.cli.main import main

if __name__ == "__main__":
    main()
