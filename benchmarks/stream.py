"""What does a message of output cost: one execution that prints 50,000 times 100 bytes?"""

from __future__ import annotations

from .clients import ONE_IN_FLIGHT, TEXT_SIZE
from .harness import Measurement


def measurements(*, quick: bool) -> list[Measurement]:
    count = 2_000 if quick else 50_000
    title = f"stream, {count:,} messages of {TEXT_SIZE} bytes"
    return [
        Measurement(
            name, {"stream": title}, ["-m", "benchmarks.clients", name, "stream", str(count), "{connection_file}"]
        )
        for name in ONE_IN_FLIGHT
    ]
