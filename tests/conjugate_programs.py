"""Linear regression with known noise and a normal prior, whose posterior is known.

The features are orthogonal within each task, so that the exact posterior is a product of normals
and the mean-field guide can be exact.
"""

import math

import torch
from problems import F64

from pyro_vmtl import TaskData
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.models import LinearRegressor, TaskNoise, ZeroMeanNormal

NOISE, PRIOR, F, N = 0.5, 1.5, 3, 12


def problem(num_tasks, *, equal=False):
    """Tasks with orthogonal features, equal or each with its own rows."""
    generator = torch.Generator().manual_seed(0)
    X, y, tasks = [], [], []
    for t in range(num_tasks):
        if equal:
            generator.manual_seed(1)
        x = torch.linalg.qr(torch.randn(N, F, generator=generator, dtype=F64))[0] * 3
        w = torch.randn(F, generator=generator, dtype=F64)
        X.append(x)
        y.append(x @ w + NOISE * torch.randn(N, generator=generator, dtype=F64))
        tasks += [t] * N
    return TaskData.regression(torch.cat(X), torch.cat(y), tasks)


def programs(data):
    """The regressor with noise and prior known, and its guide."""
    prior = ZeroMeanNormal([F], init_scale=PRIOR)
    model = LinearRegressor(prior, TaskNoise(data.num_tasks, NOISE)).double()
    with torch.no_grad():  # exactly, not as float32 rounded them
        prior.raw_scale.fill_(math.log(PRIOR))
        model.noise.raw_noise_scale.fill_(math.log(NOISE))
    model.requires_grad_(False)
    return model, MeanFieldNormal({"w": [F]}, data.num_tasks).double()
