"""Variants to copy: plain Pyro models that share, each in one file. See docs/variants.md."""
