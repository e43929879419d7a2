"""How much of the client's time a kernel costs: ``python -m benchmarks`` from the repository's root."""
