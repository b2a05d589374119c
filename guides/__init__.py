"""Variational families: plain Pyro guides. Pyro's ``AutoNormal`` serves as well."""

if __name__ == "guides":
    raise ImportError("Import this as pyro_vmtl.guides: `guides` would be a second copy of it.")

from pyro_vmtl.guides.mean_field import MeanFieldNormal

__all__ = ["MeanFieldNormal"]
