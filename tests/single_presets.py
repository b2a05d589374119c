"""Presets one by one, without those that choose among others."""

from pyro_vmtl.methods.by_features import ByFeatures
from pyro_vmtl.methods.presets import presets


def single_presets(kind, *, few=False):
    """Return the presets for many features by name; with ``few`` also the others, as name-few."""
    found = {}
    for name, method in presets(kind).items():
        if name in ("default", "pooled"):  # whose programs take the rows of one task
            continue
        if not isinstance(method, ByFeatures):
            found[name] = method
            continue
        found[name] = method.many_features
        if few:
            found[f"{name}-few"] = method.few_features
    return found
