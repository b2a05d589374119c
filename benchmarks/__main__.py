"""Run a benchmark: ``python -m benchmarks NAME``."""

import typer

from benchmarks.command import benchmark

typer.run(benchmark)
