"""A model and guide of a user's own, the shops of the README, wherever the presets go."""

import matplotlib as mpl
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import Programs, Stack, TaskData, VMTLRegressor, share
from pyro_vmtl.analysis import report_sections, to_datatree, write_report
from pyro_vmtl.methods.saving import from_state, to_state

mpl.use("agg")

SHOPS = ["Ada", "Bo", "Cy", "Di"]


def model(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        rate = (data.x @ w.mT).squeeze(-1).exp()
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Poisson(rate), obs=data.y)


def shared(data):
    return share(model, AutoNormal(model), sites=["w"])


def alone(data):
    return model, AutoNormal(model)


FEW = {"num_steps": 150}
STACK = Stack({"shared": Programs(shared, FEW), "alone": Programs(alone, FEW)}, num_folds=2)


def rows_of(num, seed):
    """Counts of shops, with the rates that they have."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(num, 3, generator=generator)
    tasks = [SHOPS[i % 4] for i in range(num)]
    sign = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(num // 4)
    rate = (1 + 0.5 * sign * X.sum(1)).exp()
    X = torch.cat([X, torch.ones(num, 1)], dim=1)
    return X, torch.poisson(rate, generator=generator), tasks, rate


@pytest.fixture(scope="module")
def data():
    X, y, tasks, _ = rows_of(80, 0)
    return TaskData.regression(X, y, tasks)


@pytest.fixture(scope="module")
def fitted(data):
    return STACK.fit(data)


def test_they_are_stacked_and_predict(fitted, data):
    assert set(fitted.members) == {"shared", "alone"} and set(fitted.calibrations) == {
        *STACK.members
    }
    X, _, tasks, rate = rows_of(400, 1)
    rows = data.new_rows(X, tasks)
    mean = rows.unpad(fitted.predictive(rows).mean)
    # far better than the best constant
    assert (mean - rate).square().mean() < 0.2 * rate.var()
    some = fitted.predictive(rows, tasks=torch.tensor([1, 3])).mean
    torch.testing.assert_close(some, fitted.predictive(rows).mean[[1, 3]])


def test_what_they_borrow_is_known(fitted):
    shares = fitted.relatedness(num_samples=50)
    torch.testing.assert_close(shares.sum(-1), torch.ones(50, 4))
    alone, shared = (fitted.members[name] for name in ("alone", "shared"))
    assert (alone.borrowing.draw(alone.guide, num_samples=2)[..., -1] == 1).all()
    drawn = shared.borrowing.draw(shared.guide, num_samples=50)
    assert (drawn[..., :-1].sum(-1) > 0).all()


def test_their_state_is_restored_given_the_method(fitted, data):
    config, tensors = to_state(fitted)
    again = from_state(config, tensors, data, STACK)
    assert torch.equal(again.predictive(data).mean, fitted.predictive(data).mean)
    assert torch.equal(again.relatedness(num_samples=5), fitted.relatedness(num_samples=5))
    with pytest.raises(ValueError, match=r"has programs of your own.*`method=`"):
        from_state(config, tensors, data)


def test_they_are_exported_and_reported(fitted, data, tmp_path):
    X, y, tasks, _ = rows_of(40, 2)
    tree = to_datatree(fitted, data, rows=data.new_rows(X, tasks, y), num_samples=100)
    assert tree["predictions"].dataset.sizes["row"] == 40
    assert list(tree["shared"]["posterior"]["w"].coords["task"].values) == SHOPS
    pit = tree["predictions"]["pit"].values
    # 40 numbers, uniform if calibrated: the mean has a standard error of 0.046
    assert abs(pit.mean() - 0.5) < 4 * 0.046
    page = write_report(
        tmp_path, report_sections(tree), title="Shops", summary=["four"], footer="end"
    )
    text = page.read_text()
    assert "Shops" in text and text.count("<img") + text.count("<svg") >= 5


def test_an_estimator_takes_them(tmp_path):
    X, y, tasks, rate = rows_of(80, 0)
    method = Programs(shared, FEW)
    reg = VMTLRegressor(method, likelihood="poisson", num_samples=50).fit(X, y, tasks=tasks)
    assert np.square(reg.predict(X, tasks=tasks) - rate.numpy()).mean() < 0.3 * rate.var()
    reg.save(tmp_path / "shops")
    again = VMTLRegressor.load(tmp_path / "shops", method=method)
    np.testing.assert_array_equal(again.predict(X, tasks=tasks), reg.predict(X, tasks=tasks))
    with pytest.raises(ValueError, match="method of your own"):
        VMTLRegressor.load(tmp_path / "shops")
    tree = reg.to_datatree(X, y, tasks=tasks, rows=(X[:8], y[:8], tasks[:8]), num_samples=50)
    assert tree["predictions"].dataset.sizes["row"] == 8
