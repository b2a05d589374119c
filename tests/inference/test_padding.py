"""Padded rows: a model that counts them is refused before it is fitted."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import classifier
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import RandomRows, RandomTasks, TaskData, fit, share
from pyro_vmtl.inference.elbo import MeanFieldELBO, evaluate


@pytest.fixture
def data():
    """Tasks of 4, 1 and 3 rows."""
    X = torch.arange(8.0)[:, None] / 8
    return TaskData.regression(X, X[:, 0] + 1, list("aaaabccc"))


def masked(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(w, 1.0), obs=data.y)


def unmasked(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", data.num_rows, dim=-1):
            pyro.sample("y", dist.Normal(w, 1.0), obs=data.y)


def other_names(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("pupils", data.num_rows, dim=-1):
            pyro.sample("score", dist.Normal(w, 1.0), obs=data.y)


def one_of_two(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", data.num_rows, dim=-1):
            with poutine.mask(mask=data.mask):
                pyro.sample("y", dist.Normal(w, 1.0), obs=data.y)
            pyro.sample("extra", dist.Normal(w, 1.0), obs=torch.ones_like(data.y))


def rows_as_event(data):
    with pyro.plate("task", data.num_tasks):
        w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("y", dist.Normal(w[..., None], 1.0).to_event(1), obs=data.y)


def flat_rows(data):
    with pyro.plate("task", data.num_tasks):
        w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
    means = w[:, None].expand(-1, data.num_rows).flatten()
    pyro.sample("y", dist.Normal(means, 1.0).to_event(1), obs=data.y.flatten())


def real_rows_only(data):
    with pyro.plate("task", data.num_tasks):
        w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
    means = w[:, None].expand(-1, data.num_rows)[data.mask]
    with pyro.plate("rows", len(means)):
        pyro.sample("y", dist.Normal(means, 1.0), obs=data.y[data.mask])


@pytest.mark.parametrize(
    ("model", "site"),
    [
        (unmasked, "y"),
        (other_names, "score"),
        (one_of_two, "extra"),
        (rows_as_event, "y"),
        (flat_rows, "y"),
    ],
)
def test_a_model_that_counts_padded_rows_is_refused(data, model, site):
    message = rf"'{site}' counts the padding of task 'b' .* 3 of 4 rows.*mask\(mask=data.mask\)"
    with pytest.raises(ValueError, match=message):
        fit(model, AutoNormal(model), data, num_steps=1)
    if model is not flat_rows:
        with pytest.raises(ValueError, match=message):
            fit(*share(model, AutoNormal(model), sites=["w"]), data, num_steps=1)


@pytest.mark.parametrize("model", [masked, real_rows_only])
def test_a_model_that_does_not_is_fitted_as_without_padding(data, model):
    guide = AutoNormal(model)
    fit(model, guide, data, num_steps=1)
    by_hand = dist.Normal(0.5, 1.0).log_prob(data.y[data.mask]).sum()
    point = poutine.condition(model, {"w": torch.full((3, 1) if model is masked else (3,), 0.5)})
    terms = evaluate(MeanFieldELBO(), point, lambda data: None, data).terms
    torch.testing.assert_close(terms.log_likelihood["y"].sum(), by_hand)


def test_without_padding_there_is_nothing_to_mask(data):
    even = TaskData.regression(data.x[[0, 2], :3].flatten(0, 1), [1.0] * 6, list("aaabbb"))
    fit(unmasked, AutoNormal(unmasked), even, num_steps=1)


def test_batches_of_rows_and_of_tasks_are_checked(ragged):
    model, guide = classifier(ragged)

    def counting(data):
        with poutine.mask(mask=True), _Unmasked():
            model(data)

    for settings in ({"batches": RandomRows(4)}, {"tasks": RandomTasks(2)}):
        fit(*share(model, guide, sites=["w"]), ragged, num_steps=1, **settings)
        with pytest.raises(ValueError, match="counts the padding of task"):
            fit(*share(counting, guide, sites=["w"]), ragged, num_steps=1, **settings)


class _Unmasked(poutine.messenger.Messenger):
    def _pyro_sample(self, msg):
        if msg["name"] == "y":
            msg["mask"] = None
