"""The conjugate guide, against the exact joint posterior and evidence, and against Monte Carlo."""

import pytest
import torch
from pyro.distributions import Independent, MultivariateNormal, Normal
from torch.distributions import kl_divergence

from pyro_vmtl import MeanFieldELBO, TaskData, share
from pyro_vmtl.data.plates import some_tasks
from pyro_vmtl.guides import ConjugateNormal
from pyro_vmtl.guides.conjugate import InverseAndLogDet
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.models import HierarchicalNormal, LinearRegressor, LogNormalNoise

T, F = 3, 4


def make_data(num_rows=7, weight=None):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(T * num_rows, F, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([1.0, -1.0, 0.0, 0.5], dtype=torch.float64)
    y = y + 0.3 * torch.randn(len(y), generator=generator, dtype=torch.float64)
    tasks = [t for t in "abc" for _ in range(num_rows)]
    return TaskData.regression(x, y, tasks, **({} if weight is None else {"sample_weight": weight}))


def make_programs(data):
    model = LinearRegressor(
        HierarchicalNormal([data.num_features], latent_scales=True), LogNormalNoise()
    )
    return model, ConjugateNormal(data)


def with_known_scales(guide, scale, noise_scale, mean_scale):
    """Make the posteriors of all scales points."""
    with torch.no_grad():
        guide.scale.loc.copy_(scale.log())
        guide.noise.loc.copy_(noise_scale.log()[:, None])
        guide.raw_mean_scale.copy_(torch.tensor(mean_scale).log())
        for part in (guide.scale, guide.noise):
            part.raw_spread.fill_(-30.0)
    return guide.double()


def exact(data, scale, noise_scale, mean_scale):
    """Compute the joint posterior of (m, w_1, ..., w_T) and the evidence, as one regression."""
    x, y = data.x.double(), data.y.double()
    num_rows = x.shape[1]
    of_m = torch.eye(F).double() * mean_scale**2
    prior = of_m.repeat(T + 1, T + 1)
    for t in range(1, T + 1):
        block = slice(t * F, (t + 1) * F)
        prior[block, block] += torch.diag(scale.double() ** 2)
    design = torch.zeros(T * num_rows, (T + 1) * F).double()
    for t in range(T):
        design[t * num_rows : (t + 1) * num_rows, (t + 1) * F : (t + 2) * F] = x[t]
    noise = (noise_scale.double() ** 2).repeat_interleave(num_rows)
    evidence = design @ prior @ design.T + torch.diag(noise)
    gain = torch.linalg.solve(evidence, design @ prior).T
    cov = prior - gain @ design @ prior
    log_evidence = MultivariateNormal(torch.zeros(len(noise)).double(), evidence)
    return gain @ y.flatten(), cov, log_evidence.log_prob(y.flatten())


SCALES = torch.tensor([0.5, 0.02, 1.0, 3.0]), torch.tensor([0.3, 0.5, 1.0]), 0.7


def test_it_is_the_exact_posterior_where_the_scales_are_known():
    data = make_data()
    guide = with_known_scales(make_programs(data)[1], *SCALES)
    mean, cov, _ = exact(data, *SCALES)
    # rounding of float64, in sums of some hundred terms of size 1 to 1000
    close = {"rtol": 0, "atol": 1e-6}
    m, w = guide.posterior("w_mean"), guide.posterior("w")
    torch.testing.assert_close(m.mean, mean[:F], **close)
    torch.testing.assert_close(m.covariance_matrix, cov[:F, :F], **close)
    for t in range(T):
        block = slice((t + 1) * F, (t + 2) * F)
        torch.testing.assert_close(w.mean[t, 0], mean[block], **close)
        torch.testing.assert_close(w.covariance_matrix[t, 0], cov[block, block], **close)


def test_coefficients_given_their_mean_are_those_of_the_joint_posterior():
    data = make_data()
    guide = with_known_scales(make_programs(data)[1], *SCALES)
    _, cov, _ = exact(data, *SCALES)
    w = guide.coefficients()
    for t in range(T):
        block = slice((t + 1) * F, (t + 2) * F)
        torch.testing.assert_close(w.gain[t] @ w.mean_cov, cov[block, :F], rtol=0, atol=1e-6)


def test_the_elbo_is_then_the_exact_evidence():
    data = make_data()
    model, guide = make_programs(data)
    guide = with_known_scales(guide, *SCALES)
    with torch.no_grad():
        model.prior.mean_prior.raw_scale.copy_(torch.tensor(SCALES[2]).log())
        terms = evaluate(MeanFieldELBO(), model.double(), guide, data).terms
    elbo = terms.log_likelihood["y"].sum() - terms.kl["w"].sum() - terms.kl["w_mean"].sum()
    torch.testing.assert_close(elbo, exact(data, *SCALES)[2], rtol=1e-7, atol=1e-6)


def test_expected_terms_are_averages_over_draws():
    data = make_data()
    model, guide = (program.double() for program in make_programs(data))
    torch.manual_seed(0)
    with torch.no_grad():
        exactly = evaluate(MeanFieldELBO(), model, guide, data).terms
        parts = [
            evaluate(MeanFieldELBO(num_particles=500), model, guide, data).terms for _ in range(20)
        ]
    for kind, site in (("log_likelihood", "y"), ("kl", "w"), ("kl", "w_mean")):
        found = torch.stack([getattr(part, kind)[site] for part in parts])
        error = found.std(0) / len(parts) ** 0.5
        off = (found.mean(0) - getattr(exactly, kind)[site]).abs()
        assert (off <= 4 * error + 1e-9).all(), site


def test_the_loss_does_not_depend_on_draws():
    data = make_data()
    programs = make_programs(data)
    one, other = (evaluate(MeanFieldELBO(), *programs, data).loss for _ in range(2))
    assert one == other


def test_terms_of_some_tasks_stand_for_all():
    data = make_data()
    model, guide = make_programs(data)
    whole = evaluate(MeanFieldELBO(), model, guide, data).terms
    for site, kind in (("y", whole.log_likelihood), ("w", whole.kl), ("noise_scale", whole.kl)):
        total = 0.0
        for t in range(T):
            with some_tasks(torch.tensor([t])):
                terms = evaluate(MeanFieldELBO(), model, guide, data).terms
            total += getattr(terms, "log_likelihood" if site == "y" else "kl")[site].sum() / T
        torch.testing.assert_close(total, kind[site].sum())


def test_weight_2_is_a_row_twice():
    data = make_data()
    x, y, tasks = data.x.flatten(0, 1), data.y.flatten(), [t for t in "abc" for _ in range(7)]
    twice = TaskData.regression(x.repeat(2, 1), y.repeat(2), tasks * 2)
    weighted = make_data(weight=torch.full((len(y),), 2.0))
    one, other = (ConjugateNormal(d).posterior("w") for d in (twice, weighted))
    torch.testing.assert_close(one.mean, other.mean)
    torch.testing.assert_close(one.covariance_matrix, other.covariance_matrix)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_collinear_features_and_extreme_scales_have_a_posterior(scale):
    x = torch.ones(6, 3).double() * 1e3
    data = TaskData.regression(x, torch.arange(6.0), list("aaabbb"))
    guide = ConjugateNormal(data, init_scale=scale)
    model = LinearRegressor(HierarchicalNormal([3], latent_scales=True), LogNormalNoise())
    assert evaluate(MeanFieldELBO(), model, guide, data).loss.isfinite()
    assert guide()["w"].isfinite().all()


def test_kl_to_independent_normals_is_that_to_a_multivariate_normal():
    root = torch.tensor([[1.0, 0.0], [0.5, 0.3]]).double()
    p = MultivariateNormal(torch.tensor([0.2, -1.0]).double(), scale_tril=root)
    scale = torch.tensor([0.4, 2.0]).double()
    q = Normal(torch.tensor([1.0, 0.0]).double(), scale)
    wide = MultivariateNormal(q.loc, scale_tril=torch.diag(scale))
    torch.testing.assert_close(kl_divergence(p, Independent(q, 1)), kl_divergence(p, wide))


def test_its_coefficients_are_not_shared_as_their_kl_is_from_its_own_prior():
    data = make_data()
    with pytest.raises(ValueError, match="hands over the KL of site 'w' from a prior of its own"):
        share(*make_programs(data), sites=["w"])[1](data)


def test_the_gradient_of_the_inverse_has_gradients_itself():
    """As linear response needs."""
    root = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def function(root):
        inverse, log_det = InverseAndLogDet.apply(root @ root.mT + torch.eye(3))
        return inverse, log_det

    matrix = root @ root.mT + torch.eye(3)
    inverse, log_det = function(root)
    torch.testing.assert_close(inverse, torch.linalg.inv(matrix))
    torch.testing.assert_close(log_det, torch.logdet(matrix))
    assert torch.autograd.gradcheck(function, root.requires_grad_())
    assert torch.autograd.gradgradcheck(function, root)
