"""``coset`` and ``python -m coset``: the command line."""

import sys


def main() -> None:
    """Entry point: as :func:`coset.cli.main`, which takes a moment to import; stopped in it, there is one line, too."""
    try:
        from coset.cli import main as command_line
    except KeyboardInterrupt:
        print("error: stopped", file=sys.stderr)
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    main()
