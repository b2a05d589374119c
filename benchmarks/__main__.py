"""Compare methods on a data set: ``python -m benchmarks NAME``."""

from benchmarks.command import app

app(prog_name="python -m benchmarks")
