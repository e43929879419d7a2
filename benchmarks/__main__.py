"""``python -m benchmarks [execute] [stream] [startup] [--rounds N] [--quick] [--json PATH]``, or ``soak``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from . import execute, harness, soak, startup, stream

WORKLOADS = {"execute": execute, "stream": stream, "startup": startup}


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["soak"]:
        return soak.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(WORKLOADS)} (default: all), or soak")
    parser.add_argument("--rounds", type=int, default=None, metavar="N", help="default 5; 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that everything works")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write medians, ratios and samples, in seconds")
    options = parser.parse_args(arguments)
    for name in options.workloads:
        if name not in WORKLOADS:
            parser.error(f"no workload {name!r}")
    measurements = [
        measurement
        for name in options.workloads or WORKLOADS
        for measurement in WORKLOADS[name].measurements(quick=options.quick)
    ]
    where = harness.environment()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        os.environ["IPYTHONDIR"] = directory  # nobody's profile and history
        samples = harness.run(measurements, options.rounds or (1 if options.quick else 5))
    tables = harness.summary(samples)
    print(harness.report(tables, where))
    if options.json:
        options.json.write_text(json.dumps({**where, "tables": tables}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
