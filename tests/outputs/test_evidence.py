"""The evidence of gates against marginal likelihoods, in closed form and by quadrature."""

import pytest
import torch
from pyro import distributions as dist

from pyro_vmtl.outputs.choosing import _own_share
from pyro_vmtl.outputs.evidence import Regression, gate_log_probabilities
from pyro_vmtl.outputs.messengers import Output
from pyro_vmtl.outputs.responses import response_of

pytestmark = pytest.mark.usefixtures("in_float64")


def regression(fn, value, features, always=None):
    size, num = value.shape[1], len(value)
    always = torch.ones(num, 1, 1) if always is None else always
    zeros, ones = torch.zeros(num, size), torch.ones(num, 1)
    return Regression(response_of(fn, "y"), zeros, zeros, value, 4 * ones, features, always)


def test_the_evidence_of_real_outputs_is_the_marginal_likelihood():
    num, fn = 30, dist.Normal(torch.zeros(()), 0.5)
    features = {(1, 1): torch.randn(num, 1, 1), (2, 1): torch.randn(num, 1, 3)}
    always = torch.randn(num, 1, 2)
    y = features[1, 1][:, 0] - features[2, 1][:, 0].sum(1, keepdim=True) + torch.randn(num, 1)
    found = regression(fn, y, features, always).log_evidence()

    def marginal(*open_features):
        x = torch.cat([always[:, 0], *(f[:, 0] for f in open_features)], 1)
        covariance = 0.25 * torch.eye(num) + x @ x.mT
        return dist.MultivariateNormal(torch.zeros(num), covariance).log_prob(y[:, 0])

    shut = marginal()
    for opened in ({1: 1}, {2: 1}, {1: 1, 2: 1}):
        expected = marginal(*(features[choice] for choice in opened.items())) - shut
        assert found(opened) == pytest.approx(float(expected), abs=1e-8)


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_the_evidence_of_binary_outputs_is_about_that_of_quadrature(slope):
    num, fn = 400, dist.Bernoulli(logits=torch.zeros(()))
    x = torch.randn(num)
    y = torch.bernoulli(torch.sigmoid(slope * x - 0.2))
    rows = regression(fn, y[:, None], {(1, 1): x[:, None, None]})
    grid = torch.linspace(-2, 2, 201)
    eta = grid[:, None, None] * x + grid[:, None]  # (weight, intercept, rows)
    log_prob = 4 * dist.Bernoulli(logits=eta).log_prob(y).sum(-1)  # each row counts four times
    prior = dist.Normal(0.0, 1.0).log_prob(grid)
    shut = (log_prob[100] + prior).logsumexp(0)
    opened = (log_prob + prior + prior[:, None]).flatten().logsumexp(0) + torch.tensor(0.02).log()
    expected = float(opened - shut)
    # the posterior is about normal, less so far out: with strong evidence 0 is there
    assert rows.log_evidence()({1: 1}) == pytest.approx(expected, abs=0.05, rel=0.1)
    prior = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    chance = gate_log_probabilities(rows, prior)[1].exp()
    assert float(chance[1]) == pytest.approx(1 / (1 + 9 * 2.718281828**-expected), abs=0.02)


def test_of_two_copies_of_a_source_one_feeds():
    num, fn = 200, dist.Normal(torch.zeros(()), 0.5)
    x = torch.randn(num, 1, 1)
    rows = regression(fn, x[:, 0] + 0.5 * torch.randn(num, 1), {(1, 1): x, (2, 1): x.clone()})
    prior = torch.tensor([0.9, 0.1]).log().repeat(3, 1)
    least, most = gate_log_probabilities(rows, prior).exp()[1:, 1].sort().values
    assert most > 0.99
    assert least < 0.1


def test_without_its_own_share_a_prediction_is_that_of_the_other_rows():
    """Of a linear regression by Bayes' rule, exactly."""
    x, y = torch.randn(12, 3), torch.randn(12)
    fn = dist.Normal(torch.zeros(12), 0.5)

    def posterior(rows):
        covariance = torch.linalg.inv(torch.eye(3) + 4 * x[rows].mT @ x[rows])
        return covariance @ (4 * x[rows].mT @ y[rows]), covariance

    mean, covariance = posterior(torch.arange(12))
    variance = ((x @ covariance) * x).sum(1, keepdim=True)
    site = {"fn": fn, "value": y, "scale": 1.0, "mask": None}
    output = Output(site, response_of(fn, "y"), (x @ mean)[:, None])
    without = (x @ mean)[:, None] - _own_share(output, output.eta, variance)
    for row in range(12):
        others = torch.arange(12) != row
        torch.testing.assert_close(without[row, 0], x[row] @ posterior(others)[0])
