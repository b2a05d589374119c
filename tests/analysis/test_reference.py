"""NUTS as a reference, against the closed form of what it samples."""

import numpy as np
import pyro
import pytest
import torch
import xarray as xr
from conjugate_programs import NOISE, PRIOR, F, problem, programs
from problems import F64, randomize_sources

from pyro_vmtl import relatedness, share, temper
from pyro_vmtl.analysis import nuts_reference


def like(num_tasks):
    dims = ("chain", "draw", "task", "feature")
    w = xr.Dataset(
        {"w": (dims, np.zeros((1, 2, num_tasks, F)))}, {"task": list("abcd"[:num_tasks])}
    )
    return xr.DataTree.from_dict({"posterior": w})


@pytest.mark.slow
def test_the_reference_of_a_shared_and_tempered_model_is_the_posterior_under_its_pools():
    data, kl_weight = problem(3), 0.5
    model, guide = programs(data)
    with torch.no_grad():
        guide.locs["w"].normal_()
        guide.raw_scales["w"].uniform_(-2.0, -0.5)
    shared_model, shared_guide = share(model, guide, sites=["w"])
    shared_guide(data)
    randomize_sources(shared_guide)
    pair = temper(shared_model, shared_guide, kl_weights=kl_weight)
    before = torch.random.get_rng_state(), dict(pyro.get_param_store().named_parameters())
    reference = nuts_reference(
        *pair, data, like=like(3), num_samples=1000, warmup=300, num_chains=1
    )
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert dict(pyro.get_param_store().named_parameters()) == before[1]
    w = reference["posterior"]["w"]
    assert w.dims == ("chain", "draw", "task", "feature") and list(w.task.values) == list("abc")
    assert list(reference["posterior"].data_vars) == ["w"]
    assert not reference["sample_stats"]["diverging"].any()

    # The logarithmic pool is a normal: precisions and their means, weighed, add up.
    weights = relatedness(shared_guide, "w", num_samples=4000).double().mean(0)
    posterior = guide.posterior("w")
    loc, var = posterior.mean[:, 0].detach(), posterior.variance[:, 0].detach()
    precision = 1 / (var + shared_guide.state["w"].transfer_var.detach().reshape(3, 1))
    prior = weights[:, :3] @ precision + weights[:, 3:] / PRIOR**2
    pulled = weights[:, :3] @ (loc * precision)
    for t in range(3):
        x, y = data.x[t] / NOISE, data.y[t] / NOISE
        exact = torch.linalg.inv(x.T @ x / kl_weight + torch.diag(prior[t]))
        mean, sd = exact @ (x.T @ y / kl_weight + pulled[t]), exact.diagonal().sqrt()
        draws = torch.as_tensor(w.isel(task=t, chain=0).values, dtype=F64)
        # of 1,000 draws, hardly dependent ones: 4 standard errors
        assert ((draws.mean(0) - mean).abs() < 4 * sd / 750**0.5).all()
        assert ((draws.std(0) / sd - 1).abs() < 4 / 1500**0.5).all()


def test_a_model_whose_sites_are_tempered_apart_has_no_target():
    data = problem(2)
    pair = temper(*programs(data), kl_weights={"w": 0.0})
    with pytest.raises(ValueError, match=r"KL weights of the latent sites are \{'w': 0.0\}"):
        nuts_reference(*pair, data, like=like(2))
