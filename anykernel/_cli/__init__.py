"""The command line: what people use who do not write async code.

It may import public names alone. A newcomer begins with ``program``, which has the commands' arguments; each command is a module.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """The console script ``anykernel``."""
    from .._late import load  # noqa: PLC0415 - what is missing is told, not shown
    from .._protocol import MissingDependencyError  # noqa: PLC0415

    try:
        program = load("_cli.program", "cli")
    except MissingDependencyError as exc:
        sys.stderr.write(f"anykernel: {exc}\n")
        sys.exit(2)
    program.main()
