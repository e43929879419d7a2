"""``python -m benchmarks [QUESTION...] [--quick | --full] [--rounds N] [--json PATH] [--chart PATH...]``, or ``soak``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from . import chart, execute, growth, harness, ipython, large, many, report, scale, startup, stream

QUESTIONS = {
    module.__name__.rpartition(".")[2]: module
    for module in (execute, growth, stream, large, ipython, startup, many, scale)
}


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["soak"]:
        from . import soak

        return soak.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", help=f"of {', '.join(QUESTIONS)} (default: all), or soak")
    parser.add_argument("--rounds", type=int, metavar="N", help="default 3; 1 with --quick")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_const", dest="size", const="quick", help="shows that everything works")
    sizes.add_argument(
        "--full", action="store_const", dest="size", const="full", help="the numbers that the targets speak of"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write medians, samples and targets")
    parser.add_argument(
        "--chart", type=Path, nargs="+", metavar="PATH", help="draw CPU time relative to raw pyzmq, as .svg or .png"
    )
    parser.set_defaults(size="default")
    options = parser.parse_args(arguments)
    for name in options.questions:
        if name not in QUESTIONS:
            parser.error(f"no question {name!r}")
    if options.chart and not find_spec("matplotlib"):
        parser.error("--chart needs matplotlib")
    tables = [table for name in options.questions or QUESTIONS for table in QUESTIONS[name].tables(options.size)]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        os.environ["IPYTHONDIR"] = directory  # nobody's profile and history
        well = harness.run(tables, options.rounds or (1 if options.size == "quick" else 3))
    where = report.environment()
    print(report.text(tables, where))
    if options.json:
        options.json.write_text(json.dumps(report.results(tables, where), indent=1) + "\n")
    if options.chart:
        chart.draw(tables, where, options.chart)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
