"""Faults planted on purpose: each is caught, and by the check that names it."""

import re
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyro_vmtl import MeanFieldELBO, TaskData, share
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.testing import CHECKS, VariantError, check_variant

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(23, 3, generator=GENERATOR)
DATA = TaskData.regression(
    X, X.sum(1) + 0.3 * torch.randn(23, generator=GENERATOR), list("aaabbbbbbbbccccdddddddd")
)


def right(data, *, plates=None, mask=True, prior=None, mean=None, after=None, obs=None):
    """Linear regression, with places for faults."""
    tasks, rows, row_plate = plates or (data.num_tasks, data.num_rows, "data")
    with pyro.plate("task", tasks, dim=-2):
        prior = dist.Normal(torch.zeros(3), 1.0).to_event(1) if prior is None else prior
        w = pyro.sample("w", prior)
        loc = (data.x @ w.mT).squeeze(-1) if mean is None else mean(data, w)
        with (
            pyro.plate(row_plate, rows, dim=-1),
            poutine.mask(mask=data.mask if mask else torch.ones_like(data.mask)),
        ):
            pyro.sample("y", dist.Normal(loc, 0.5), obs=data.y if obs is None else obs(data))
            if after is not None:
                after(data)


def guide(data):
    return MeanFieldNormal({"w": [3]}, data.num_tasks)


def wrong_plate_size(data):
    right(data, plates=(data.num_tasks, data.num_rows + 1, "data"))


def wrong_plate_name(data):
    right(data, plates=(data.num_tasks, data.num_rows, "rows"))


def wrong_event_dims(data):
    right(data, prior=dist.Normal(torch.zeros(3), 1.0))


def counted_from_the_left(data):
    right(data, mean=lambda data, w: (data.x * w.sum(1, keepdim=True)).sum(2))


def forgotten_mask(data):
    right(data, mask=False)


def centred_by_padded_rows(data):
    def mean(data, w):
        return ((data.x - data.x.mean(1, keepdim=True)) @ w.mT).squeeze(-1)

    right(data, mean=mean)


def scaled_twice(data):
    """Scales a batch to the rows of the fit, which `fit` does, too."""
    with poutine.scale(scale=DATA.mask.sum() / data.mask.sum()):
        right(data)


def penalty_outside_of_rows(data):
    right(data)
    pyro.factor("penalty", -(data.mask * data.y**2).sum())


def first_task_is_special(data):
    def mean(data, w):
        w = w - torch.cat(
            [torch.zeros_like(w[..., :1, :, :]), w[..., :1, :, :].expand_as(w[..., 1:, :, :])], -3
        )
        return (data.x @ w.mT).squeeze(-1)

    right(data, mean=mean)


def coefficients_of_another_task(data):
    right(data, mean=lambda data, w: (data.x @ w.flip(-3).mT).squeeze(-1))


def detached(data):
    right(data, mean=lambda data, w: (data.x @ w.detach().mT).squeeze(-1))


OFFSETS = torch.zeros(23)


def looked_up_by_row(data):
    """Finds something by the position of a row among those of the fit."""
    right(data, mean=lambda data, w: (data.x @ w.mT).squeeze(-1) + OFFSETS[data.row])


def targets_beside_obs(data):
    right(data, mean=lambda data, w: (data.x @ w.mT).squeeze(-1) + 0 * data.y.mean())


class CountsSteps(nn.Module):
    """Warms up by a counter of its own."""

    def __init__(self):
        super().__init__()
        self.step = 0

    def forward(self, data):
        self.step += 1
        warm = min(1.0, self.step / 100)
        right(data, mean=lambda data, w: warm * (data.x @ w.mT).squeeze(-1))


class DeclaresTooMuch(nn.Module):
    """Branches on a draw, and says that it does not."""

    fixed_graph = True

    def forward(self, data):
        sign = 1.0 if torch.rand(()) > 0.5 else -3.0
        right(data, mean=lambda data, w: sign * (data.x @ w.mT).squeeze(-1))


class OfTheClass(nn.Module):
    """A guide whose numbers belong to its class: all instances have the same."""

    numbers = {}  # noqa: RUF012

    def forward(self, data):
        if not self.numbers:
            self.numbers["loc"] = nn.Parameter(torch.zeros(data.num_tasks, 1, 3))
        self.loc = self.numbers["loc"]
        with pyro.plate("task", data.num_tasks, dim=-2):
            pyro.sample("w", dist.Normal(self.loc, 0.1).to_event(1))


class SizedByTheBatch(nn.Module):
    """A guide with a number for each row of the rows that it meets first."""

    def __init__(self):
        super().__init__()
        self.loc = None

    def forward(self, data):
        if self.loc is None:
            self.loc = nn.Parameter(torch.zeros(data.num_tasks, data.num_rows))
            self.w = nn.Parameter(torch.zeros(data.num_tasks, 1, 3))
        with pyro.plate("task", data.num_tasks, dim=-2):
            pyro.sample("w", dist.Normal(self.w + self.loc.mean(), 0.1).to_event(1))


def bare_parameters(data):
    loc = pyro.param("loc", torch.zeros(data.num_tasks, 1, 3))
    with pyro.plate("task", data.num_tasks, dim=-2):
        pyro.sample("w", dist.Normal(loc, 0.1).to_event(1))


def empty_guide(data):
    pass


FAULTS = {
    "wrong plate size": (wrong_plate_size, guide, "check_plates_and_shapes"),
    "wrong plate name": (wrong_plate_name, guide, "check_plates_and_shapes"),
    "counted from the left": (counted_from_the_left, guide, "check_plates_and_shapes"),
    "wrong event dims": (wrong_event_dims, guide, "check_plates_and_shapes"),
    "site missing in the guide": (right, lambda data: empty_guide, "check_same_sites"),
    "parameters sized by the batch": (
        right,
        lambda data: SizedByTheBatch(),
        "check_parameters_of_all_rows",
    ),
    "parameters of a class": (right, lambda data: OfTheClass(), "check_side_by_side"),
    "counts its steps": (CountsSteps, guide, "check_repeated_runs"),
    "declares too much": (DeclaresTooMuch, guide, "check_repeated_runs"),
    "forgotten mask": (forgotten_mask, guide, "check_padding"),
    "centred by padded rows": (centred_by_padded_rows, guide, "check_padding"),
    "scaled twice": (scaled_twice, guide, "check_batches"),
    "outside of the rows": (penalty_outside_of_rows, guide, "check_batches"),
    "a special task": (first_task_is_special, guide, "check_permuted_tasks"),
    "another task's coefficients": (coefficients_of_another_task, guide, "check_permuted_tasks"),
    "detached": (detached, guide, "check_gradients"),
    "targets beside obs": (targets_beside_obs, guide, "check_new_rows"),
    "looked up by row": (looked_up_by_row, guide, "check_new_rows"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(fault):
    model, make_guide, expected = FAULTS[fault]
    model = model() if isinstance(model, type) else model
    with pytest.raises(VariantError) as found:
        check_variant(model, make_guide(DATA), DATA)
    assert found.value.check == expected, found.value
    message = str(found.value)
    assert message.startswith(f"{expected}: ") and len(message.splitlines()) >= 2


def test_the_message_has_the_line_to_change():
    with pytest.raises(VariantError) as found:
        check_variant(forgotten_mask, guide(DATA), DATA)
    file, line = re.search(r"at (\S+\.py):(\d+)$", str(found.value)).groups()
    assert 'pyro.sample("y"' in Path(file).read_text().splitlines()[int(line) - 1]


def test_the_right_one_passes():
    found = check_variant(right, guide(DATA), DATA, skip=["check_reload"])
    assert set(found) == set(CHECKS) - {"check_reload"}
    others = {name for name, outcome in found.items() if outcome != "passed"}
    assert others == {"check_task_blocks"}  # it reads data.x without pyro.subsample


def test_bare_parameters_pass():
    """A fit gives them to the program that has them, so that they are no fault."""
    found = check_variant(right, bare_parameters, DATA)
    assert found["check_side_by_side"] == found["check_reload"] == "passed"


def test_another_name_of_the_plate_and_positive_sites_pass():
    def model(data):
        with pyro.plate("school", data.num_tasks, dim=-2):
            w = pyro.sample("w", dist.LogNormal(torch.zeros(3), 1.0).to_event(1))
            mean = (data.x @ w.mT).squeeze(-1)
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=data.y)

    programs = share(model, AutoNormal(model), sites=["w"], plate="school")
    found = check_variant(*programs, DATA, skip=["check_reload"])
    refused = {name for name, outcome in found.items() if outcome != "passed"}
    assert refused == {"check_task_blocks"}  # as all of Pyro's autoguides do


def test_nothing_to_go_by_is_a_warning():
    model, shared = share(right, AutoNormal(right), sites=["w"], start="nearest")
    with pytest.warns(UserWarning, match="check_nearest_start.*start='alone'"):
        check_variant(model, shared, DATA, skip=["check_reload"])


def test_unknown_checks_are_refused():
    with pytest.raises(ValueError, match="no check 'check_it'"):
        check_variant(right, guide(DATA), DATA, skip=["check_it"])


class TooNarrow(MeanFieldNormal):
    """A guide that knows more than it can: standard deviations a third of the right ones."""

    def posterior(self, site):
        found = super().posterior(site).base_dist
        return dist.Normal(found.loc, found.scale.detach() * 0 + 0.03).to_event(1)


@pytest.mark.slow
def test_a_posterior_that_is_too_narrow_is_caught_on_request():
    """The right standard deviations are about 0.5 / sqrt(5), or 0.2; the guide says 0.03."""
    rest = [name for name in CHECKS if name != "check_same_sites"]
    fitting = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=4)}

    def check(one):
        return check_variant(right, one, DATA, skip=rest, simulations=20, **fitting)

    assert check(guide(DATA))["check_simulation"] == "passed"
    with pytest.raises(VariantError, match="posterior of 'w' is too narrow") as found:
        check(TooNarrow({"w": [3]}, DATA.num_tasks))
    assert found.value.check == "check_simulation"
