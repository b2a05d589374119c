"""Benchmarks: what only measures, and takes too long for a test; not part of the wheel.

``python -m benchmarks NAME`` compares methods on a data set; every other module with a command of
its own says so in its first lines.
"""
