"""Small problems and naive formulas that several tests use."""

import math

import pyro.distributions as dist
import torch
from pyro.infer import TraceMeanField_ELBO

from pyro_vmtl import TaskData
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.models import LinearClassifier, ZeroMeanNormal

F64 = torch.float64


def normal_log_density(x, loc, var):
    """Plain sum over the last dimension."""
    return (-0.5 * ((x - loc) ** 2 / var + var.log() + math.log(2 * math.pi))).sum(-1)


def normal_kl(loc, var, other_loc, other_var):
    """Textbook KL of two diagonal normals, summed over the last dimension."""
    ratio = var / other_var
    return 0.5 * (ratio - 1 - ratio.log() + (loc - other_loc) ** 2 / other_var).sum(-1)


def random_weights(num_tasks, *, base=True, seed=0):
    """(T, T + 1) rows on the simplex with a zero diagonal."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(num_tasks, num_tasks + 1, generator=generator, dtype=F64) + 0.05
    weights[:, :num_tasks].fill_diagonal_(0.0)
    if not base:
        weights[:, -1] = 0.0
    return weights / weights.sum(1, keepdim=True)


def random_normal(*shape, event_dim, seed):
    """Normal with means about 0 and scales about 0.5."""
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(*shape, generator=generator, dtype=F64)
    scale = 0.2 + torch.rand(*shape, generator=generator, dtype=F64)
    return dist.Normal(loc, scale).to_event(event_dim)


def classifier(data: TaskData, *, seed: int = 0):
    """Linear classifier and mean-field guide with random numbers in it, in float64."""
    torch.manual_seed(seed)
    shape = (data.num_classes, data.num_features)
    model = LinearClassifier(ZeroMeanNormal(shape, init_scale=0.7)).double()
    guide = MeanFieldNormal({"w": shape}, data.num_tasks).double()
    with torch.no_grad():
        guide.locs["w"].normal_()
        guide.raw_scales["w"].uniform_(-2.0, -0.5)
    return model, guide


def randomize_sources(guide, *, seed: int = 1):
    """Set the sources of a sharing guide, after its first run, to random numbers."""
    from pyro_vmtl.sharing.sources import Sources

    generator = torch.Generator().manual_seed(seed)
    for module in guide.modules():
        if isinstance(module, Sources):
            for parameter in module.parameters():
                with torch.no_grad():
                    noise = torch.randn(parameter.shape, generator=generator, dtype=F64)
                    parameter.add_(0.5 * noise)


def many_draws(num):
    """ELBO over many draws at once, for models with plates at -2 and -1."""
    return TraceMeanField_ELBO(num_particles=num, vectorize_particles=True, max_plate_nesting=2)


def plain_mean(x, keys):
    """The mean of keys that the authors' code takes: scores over their range, then softmax."""
    scores = torch.stack([x @ key for key in keys])
    scores = scores / (scores.max() - scores.min() + 1e-9)
    weights = (scores - scores.max()).exp()
    weights = weights / weights.sum()
    return sum(w * key for w, key in zip(weights, keys, strict=True))
