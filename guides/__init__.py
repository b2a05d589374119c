"""Variational families: plain Pyro guides. Pyro's ``AutoNormal`` works as well."""

if __name__ == "guides":
    raise ImportError("Import this as pyro_vmtl.guides: `guides` would be a second copy of it.")

import pyro_vmtl.sharing.correlated  # noqa: F401 (registers the KLs of MultivariateNormal)
from pyro_vmtl.guides.conjugate import ConjugateNormal
from pyro_vmtl.guides.coregionalized import CoregionalizedNormal
from pyro_vmtl.guides.full_rank import FullRankNormal
from pyro_vmtl.guides.mean_field import MeanFieldNormal
from pyro_vmtl.guides.normal_given_mean import NormalGivenMean
from pyro_vmtl.guides.paper.amortized import AmortizedNormal
from pyro_vmtl.guides.paper.encoded import EncodedNormal
from pyro_vmtl.guides.paper.encoders import ConcatenatedEncoders, LinearEncoder, MLPEncoder

__all__ = [
    "AmortizedNormal",
    "ConcatenatedEncoders",
    "ConjugateNormal",
    "CoregionalizedNormal",
    "EncodedNormal",
    "FullRankNormal",
    "LinearEncoder",
    "MLPEncoder",
    "MeanFieldNormal",
    "NormalGivenMean",
]
