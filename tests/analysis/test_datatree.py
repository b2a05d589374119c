"""Fits as a DataTree: densities against ELBOs, labels and units against what was given."""

import json
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from problems import F64, classifier, randomize_sources
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.poutine import block
from scipy import stats
from scipy.special import logsumexp
from torch.distributions import Categorical, Normal, Poisson, StudentT

from pyro_vmtl import (
    Calibration,
    GaussianSumPool,
    LinearPool,
    LinearResponse,
    LogarithmicPool,
    Programs,
    Stack,
    TaskData,
    VMTLClassifier,
    VMTLRegressor,
    predict_proba,
    relatedness,
    share,
    temper,
)
from pyro_vmtl.analysis import (
    from_pyro_svi,
    loo,
    psis_khat,
    read_netcdf,
    to_datatree,
    write_netcdf,
)
from pyro_vmtl.analysis.arviz_api import az
from pyro_vmtl.analysis.export.predicted_rows import split_uncertainty, summarize_draws
from pyro_vmtl.data.arrays import as_labels
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.point_estimates import point_estimates
from pyro_vmtl.handlers.program_handler import unwrap
from pyro_vmtl.inference.elbo import MeanFieldELBO, evaluate
from pyro_vmtl.inference.step import batch_of
from pyro_vmtl.linear_response.given_sources import given_sources
from pyro_vmtl.methods.presets import HIERARCHICAL, POOLED, SHARED, presets
from pyro_vmtl.predictive.overdispersed_poisson import OverdispersedPoisson
from pyro_vmtl.sharing.fixed_pools import with_fixed_pools

S = 2000
QUICK = {"num_steps": 20}


def shared_of(pool):
    def make(data):
        model, guide = share(*classifier(data), sites=["w"], pool=pool)
        guide(data)
        randomize_sources(guide)
        return model, guide, data

    return make


def tempered(data):
    model, guide, _ = shared_of(LogarithmicPool)(data)
    return *temper(model, guide, kl_weights=0.3), data


def weighed(data):
    weight = torch.linspace(0.2, 2.0, data.mask.numel(), dtype=F64).view(data.mask.shape)
    return *classifier(data), replace(data, weight=weight)


def points(data):
    model, guide = classifier(data)
    return model, point_estimates(guide), data


def schools(y):
    spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
    with pyro.plate("task", 3, dim=-2):
        rate = pyro.sample("rate", dist.Gamma(3.0, spread))
        pyro.deterministic("both", torch.stack([rate, rate + spread], -1))
        with pyro.plate("pupil", 4, dim=-1):
            pyro.sample("y", dist.Normal(rate, 1.0), obs=y)


PUPILS = torch.linspace(0, 6, 12, dtype=F64).view(3, 4)


def positive(data):
    guide = AutoNormal(schools)
    guide(PUPILS)
    return *temper(schools, guide, kl_weights=0.5), PUPILS


@pytest.mark.parametrize(
    ("make", "kl_weight"),
    [
        (lambda data: (*classifier(data), data), 1.0),
        (weighed, 1.0),
        (shared_of(LogarithmicPool), 1.0),
        (shared_of(LinearPool), 1.0),
        (shared_of(GaussianSumPool), 1.0),
        (tempered, 0.3),
        (points, 1.0),
        (positive, 0.5),
    ],
    ids=["plain", "weights", "log", "linear", "sum", "tempered", "points", "positive"],
)
def test_densities_are_the_integrand_of_the_elbo(ragged, make, kl_weight):
    model, guide, args = make(ragged)
    stats_ = from_pyro_svi(model, guide, args, num_samples=S)["sample_stats"]
    assert stats_.attrs["learning_rate"] == 1 / kl_weight
    integrand = (stats_["log_p"] - stats_["log_q"]).values[0] * kl_weight
    each = (stats_["log_p_task"] - stats_["log_q_task"]).values[0] * kl_weight
    # the same ELBO with closed-form KL where there is one; sites there are drawn anew
    with isolated(1), torch.no_grad(), pyro.validation_enabled(False), batch_of((args,), None):
        elbo = MeanFieldELBO(S, max_plate_nesting=2)
        pools = with_fixed_pools(model, poutine.trace(guide).get_trace(args))
        terms = evaluate(elbo, pools, block(guide, hide=["w_sources"]), args).terms
    # two means of S draws; 4 standard errors of their difference, and float64's rounding
    tolerance = 4 * np.sqrt(2 / S)
    assert abs(integrand.mean() + terms.loss) < tolerance * integrand.std() + 1e-4
    kinds = [*terms.log_likelihood.values(), *(-kl for kl in terms.kl.values())]
    of_tasks = sum(values for values in kinds if values.ndim).numpy()
    assert (abs(each.mean(0) - of_tasks) < tolerance * each.std(0) + 1e-4).all()
    if make is not positive:  # which has a site outside of the task plate
        np.testing.assert_allclose(stats_["log_p_task"].sum("task"), stats_["log_p"], rtol=1e-10)


@pytest.mark.parametrize("weights", [{"w": 0.0}, {"w": 0.3}])
def test_a_fit_without_a_target_says_so_in_place_of_densities(ragged, weights):
    model, guide = shared_of(LogarithmicPool)(ragged)[:2]
    tree = from_pyro_svi(*temper(model, guide, kl_weights=weights), ragged, num_samples=30)
    assert "sample_stats" not in tree and "learning_rate" not in tree.attrs
    assert tree.attrs["target"].startswith("There is none. The KL weights of the latent sites are")
    for refused in (psis_khat, loo):
        with pytest.raises(ValueError, match=r"no target .* Use the same for all: temper"):
            refused(tree)


def test_a_guide_of_all_sites_at_once_has_no_density_of_tasks():
    guide = AutoMultivariateNormal(schools)
    guide(PUPILS)
    stats_ = from_pyro_svi(schools, guide, PUPILS, num_samples=S)["sample_stats"]
    assert set(stats_.data_vars) == {"log_p", "log_q"}
    integrand = (stats_["log_p"] - stats_["log_q"]).values
    elbo = Trace_ELBO(S, vectorize_particles=True, max_plate_nesting=2)
    with isolated(1), pyro.validation_enabled(False):
        expected = -elbo.loss(schools, guide, PUPILS)
    assert abs(integrand.mean() - expected) < 4 * np.sqrt(2 / S) * integrand.std()


def test_log_likelihood_is_unweighted_and_in_the_users_order(ragged):
    model, guide, data = weighed(ragged)
    tree = from_pyro_svi(model, guide, data, num_samples=7)
    w = torch.as_tensor(tree["posterior"]["w"].values[0])
    x = torch.as_tensor(tree["constant_data"]["x"].values)
    index = {task: t for t, task in enumerate(data.task_labels)}
    place = [index[task] for task in tree["observed_data"]["task"].values]
    logits = torch.einsum("srcf,rf->src", w[:, place], x)
    y = torch.as_tensor(tree["observed_data"]["y"].values)
    expected = Categorical(logits=logits).log_prob(y)
    np.testing.assert_allclose(tree["log_likelihood"]["y"].values[0], expected, rtol=1e-10)
    np.testing.assert_array_equal(y, data.unpad(data.y))
    np.testing.assert_array_equal(tree["constant_data"]["sample_weight"], data.unpad(data.weight))
    assert tree["posterior"]["w"].dims == ("chain", "draw", "task", "class", "feature")


@pytest.mark.parametrize("settings", [{}, {"base": False, "min_base_weight": 0.0}])
def test_source_weights_are_those_of_the_pool(ragged, settings):
    model, guide = share(*classifier(ragged), sites=["w"], **settings)
    guide(ragged)
    tree = from_pyro_svi(model, guide, ragged, num_samples=50)
    for group in ("posterior", "prior"):
        weights = tree[group]["w_sources"]
        assert weights.dims == ("chain", "draw", "task", "source")
        assert weights["source"].values.tolist() == ["a", "b", "c", "base"]
        np.testing.assert_allclose(weights.sum("source"), 1.0, rtol=1e-5)
        assert all((weights.sel(task=t, source=t) == 0).all() for t in "abc")
        if "base" in settings:
            assert (weights.sel(source="base") == 0).all()


def test_the_prior_is_plain(ragged):
    model, guide = shared_of(LogarithmicPool)(ragged)[:2]
    prior = from_pyro_svi(model, guide, ragged, num_samples=4000)["prior"]["w"]
    assert stats.kstest(prior.values.ravel(), stats.norm(0, 0.7).cdf).pvalue > 1e-3


def test_nothing_is_left_behind(ragged):
    model, guide, _ = tempered(ragged)
    model.train()
    guide(ragged)
    before = torch.get_rng_state()
    pyro.param("another", torch.tensor(1.0))
    values = {name: value.clone() for name, value in guide.state_dict().items()}
    first, second = (from_pyro_svi(model, guide, ragged, num_samples=5) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state()) and model.training
    assert set(pyro.get_param_store()) == {"another"}
    assert all(torch.equal(values[name], value) for name, value in guide.state_dict().items())
    for group in ("posterior", "sample_stats", "prior", "posterior_predictive"):
        assert first[group].to_dataset().identical(second[group].to_dataset())


def test_rows_of_ones_own_programs_are_predicted(ragged):
    model, guide, _ = shared_of(LogarithmicPool)(ragged)
    rows = ragged.new_rows(ragged.x[0, :2], ["c", "a"], ragged.y[0, :2].tolist())
    tree = from_pyro_svi(model, guide, ragged, rows=rows, num_samples=200)
    proba = rows.unpad(predict_proba(model, guide, rows, num_samples=200))
    np.testing.assert_allclose(tree["predictions"]["proba"], proba, atol=1e-6)
    assert tree["predictions"]["task"].values.tolist() == ["c", "a"]
    with pytest.raises(ValueError, match="rows has 3 tasks, and the arguments have no TaskData"):
        from_pyro_svi(schools, positive(None)[1], PUPILS, rows=rows)


def test_parameters_in_pyros_own_store():
    y = torch.tensor([4.0, 5.0, 6.0])

    def model(y):
        mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        with pyro.plate("pupil", 3):
            pyro.sample("height", dist.Normal(mean, 1.0), obs=y)

    def guide(y):
        scale = pyro.param("scale", torch.tensor(0.1), constraint=dist.constraints.positive)
        pyro.sample("mean", dist.Normal(pyro.param("loc", torch.tensor(0.0)), scale))

    with pytest.raises(ValueError, match="no value in Pyro's parameter store"):
        from_pyro_svi(model, guide, y, site="height")
    guide(y)  # makes the parameters
    losses = [3.0, 2.0]
    pyro.get_param_store()["loc"] = torch.tensor(5.0)
    tree = from_pyro_svi(
        *(model, guide, y),
        site="height",
        history=losses,
        coords={"pupil": ["Al", "Bo", "Cy"]},
    )
    scale = pyro.param("scale").item()
    assert stats.kstest(tree["posterior"]["mean"].values[0], stats.norm(5, scale).cdf).pvalue > 1e-3
    assert tree["log_likelihood"]["height"].sel(pupil="Bo").shape == (1, 500)
    assert tree["history"]["loss"].values.tolist() == losses


def test_dimensions_of_a_users_own_model():
    guide = AutoNormal(block(schools, hide=["both"]))
    guide(PUPILS)
    dims = {"rate": ["school"], "both": ["kind"]}
    tree = from_pyro_svi(schools, guide, PUPILS, dims=dims, coords={"kind": ["one", "sum"]})
    posterior = tree["posterior"].to_dataset()
    assert posterior["rate"].dims == ("chain", "draw", "school")
    assert posterior["both"].dims == ("chain", "draw", "task", "kind")
    both = (
        posterior["rate"].values[..., None] + [0, 1] * posterior["spread"].values[..., None, None]
    )
    np.testing.assert_allclose(posterior["both"], both, rtol=1e-6)
    with pytest.raises(ValueError, match=r"dims\['rate'\] is .* expected 1 names"):
        from_pyro_svi(schools, guide, PUPILS, dims={"rate": ["a", "b"]})
    with pytest.raises(ValueError, match="has 2 labels, expected 3"):
        from_pyro_svi(schools, guide, PUPILS, coords={"task": ["a", "b"]})


def test_errors_name_the_site(ragged):
    model, guide = classifier(ragged)
    with pytest.raises(ValueError, match="'y' is not observed"):
        from_pyro_svi(model, guide, ragged.without_targets())
    with pytest.raises(ValueError, match="no site 'z', found"):
        from_pyro_svi(model, guide, ragged, site="z")
    with pytest.raises(ValueError, match="'w' is not in the guide"):
        from_pyro_svi(model, lambda data: None, ragged)


def test_labels():
    assert as_labels([np.int64(3), 1]).tolist() == [3, 1]
    assert as_labels([True, "b", 0.5]).tolist() == ["True", "b", "0.5"]
    data = TaskData.regression(torch.zeros(2, 1), torch.zeros(2), ["base", "a"])
    fitted = replace(SHARED, fitting=QUICK).fit(data)
    found = to_datatree(fitted, data, num_samples=3)["posterior"]["source"].values
    assert found.tolist() == ["'base'", "'a'", "base"]  # a task of that name is not the base


@pytest.fixture(scope="module")
def of_stack():
    generator = torch.Generator().manual_seed(0)
    X, tasks = torch.randn(40, 2, generator=generator), [7, 3, 5, 3] * 10
    y = ["low" if v > 0 else "high" for v in X[:, 0] + torch.randn(40, generator=generator)]
    data = TaskData.classification(X[:30], y[:30], tasks[:30]).with_intercept()
    members = {"shared": SHARED, "pooled": POOLED, "hierarchical": HIERARCHICAL}
    quick = {name: replace(preset, fitting=QUICK) for name, preset in members.items()}
    fitted = Stack(quick, num_folds=2).fit(data)
    rows = data.new_rows(X[30:], tasks[30:], y[30:])
    return fitted, data, rows, to_datatree(fitted, data, rows=rows, num_samples=200)


def test_a_stack_has_its_members_inside(of_stack):
    fitted, _, _, tree = of_stack
    assert set(fitted.members) < set(tree.children)
    np.testing.assert_allclose(tree["stack"]["member_weights"], fitted.weights)
    assert tree["pooled"]["posterior"]["task"].values.tolist() == ["all"]
    for each in (tree, tree["pooled"], tree["shared"]):
        assert each["log_likelihood"]["task"].values.tolist() == ([7, 3, 5, 3] * 10)[:30]
    assert {"w", "w_mean"} == set(tree["hierarchical"]["posterior"].data_vars)
    assert json.loads(tree["observed_data"]["y"].attrs["classes"]) == ["high", "low"]
    assert json.loads(tree["shared"].attrs["settings"])["object"] == "Preset"
    for node in tree.subtree:
        for name, values in node.data_vars.items():
            assert not values.isnull().any(), (node.path, name)


def test_the_mixture_of_a_stack(of_stack):
    fitted, data, rows, tree = of_stack
    settings = {"num_samples": 200}
    proba = rows.unpad(fitted.predictive(rows, **settings).probs)
    np.testing.assert_allclose(tree["predictions"]["proba"], proba, atol=1e-6)
    # draws of the mixture are a fifth of a percent off in how often there are of each member
    density = data.unpad(fitted.predictive(data, **settings).log_prob(data.y))
    found = logsumexp(tree["log_likelihood"]["y"].values[0], axis=0) - np.log(200)
    assert np.abs(found - density.numpy()).max() < 0.1
    parts = tree["predictions"]
    np.testing.assert_allclose(
        parts["entropy"], parts["expected_entropy"] + parts["mutual_information"], rtol=1e-5
    )
    assert (parts["mutual_information"] >= 0).all()


def test_parts_of_the_uncertainty_of_real_targets():
    loc, scale = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])
    parts = [Normal(m.view(1, 1, 1), s.view(1, 1, 1)) for m, s in zip(loc, scale, strict=True)]
    weights, y = torch.tensor([[0.25, 0.75]]), torch.tensor([[1.0]])
    found = summarize_draws(parts, weights, y, torch.Generator())
    found = {name: value.item() for name, value in found.items()}
    assert found["mean"] == 1.5
    assert found["epistemic_std"] == pytest.approx(np.sqrt(0.25 * 1.5**2 + 0.75 * 0.5**2))
    assert found["aleatoric_std"] == pytest.approx(np.sqrt(0.25 * 1 + 0.75 * 9))
    assert found["std"] ** 2 == pytest.approx(
        found["epistemic_std"] ** 2 + found["aleatoric_std"] ** 2
    )

    def below(value):
        return 0.25 * stats.norm.cdf(value) + 0.75 * stats.norm.cdf(value, 2, 3)

    assert found["pit"] == pytest.approx(below(1.0), abs=1e-6)
    assert [below(found["lower"]), below(found["upper"])] == pytest.approx([0.05, 0.95], abs=1e-4)


def closure(data):
    """A model that takes its features from outside."""

    def model(rows):
        with pyro.plate("task", rows.num_tasks, dim=-2):
            w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
            mean = (data.x @ w.mT).squeeze(-1)
            with pyro.plate("data", rows.num_rows, dim=-1), poutine.mask(mask=rows.mask):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=rows.y)

    return model


def test_draws_of_fits_without_draws_have_covariances_by_linear_response(monkeypatch):
    """Standard deviations of 1,000 draws are within 11 %, five of their standard errors."""
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(6, 30, 2, generator=generator), torch.tensor([[1.0, 0.0], [0.0, -1.0]] * 3)
    y = torch.einsum("tnf,tf->tn", x, w) + torch.randn(6, 30, generator=generator)
    data = TaskData.regression(
        x.flatten(0, 1), y.flatten(), [t for t in range(6) for _ in "x" * 30]
    )
    preset = presets("regression")["shared"].few_features
    fitted = preset.fit(data)
    tree = to_datatree(fitted, data, num_samples=1000)
    assert tree.attrs["covariances"] == "linear response"
    elbo = preset.fit_settings(data)["elbo"]
    response = LinearResponse(fitted.model, fitted.guide, data, elbo=elbo)
    found = torch.as_tensor(tree["posterior"]["w"].values[0]).double().std(0)
    torch.testing.assert_close(found.flatten(), response.stddev("w").flatten(), rtol=0.11, atol=0)
    own = unwrap(fitted.guide).posterior("w").stddev
    assert found.mean() > own.mean() * 1.02
    # of more parameters, those of each task given its sources
    monkeypatch.setattr("pyro_vmtl.analysis.export.datatree.MOST_PARAMETERS", 0)
    tree = to_datatree(fitted, data, num_samples=1000)
    assert tree.attrs["covariances"] == "given the sources"
    guide = given_sources(fitted.model, fitted.guide, data, elbo=elbo)
    expected = guide.state.normals["w"][1].norm(dim=-1)
    given = torch.as_tensor(tree["posterior"]["w"].values[0]).double().std(0)
    torch.testing.assert_close(given.flatten(), expected.flatten(), rtol=0.11, atol=0)
    monkeypatch.undo()
    # where it does not hold, draws are those of the guide: with different KL weights, far from
    # the optimum, and in programs that hold float32 numbers
    early = replace(preset, fitting={"optimizer": "lbfgs", "num_steps": 5}).fit(data)
    assert to_datatree(early, data, num_samples=30).attrs["covariances"] == "as fitted"
    settings = preset.fit_settings(data)
    method = Programs(
        lambda rows: share(closure(rows), AutoNormal(closure(rows)), sites=["w"]), settings
    )
    assert to_datatree(method.fit(data), data, num_samples=30).attrs["covariances"] == "as fitted"
    tempered = replace(preset, kl_weights={"w": 0.5}).fit(data)
    assert to_datatree(tempered, data, num_samples=30).attrs["covariances"] == "as fitted"


@pytest.mark.parametrize("kind", ["real", "classes"])
def test_a_calibration_changes_the_total_and_not_the_shares(kind):
    """With posterior scale 0 draws agree, and the posterior is as uncertain as before."""
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(50, 2, 3, *([4] if kind == "classes" else []), generator=generator)
    draws = [Normal(center, 0.5) if kind == "real" else Categorical(logits=2 * center)]
    weights = torch.ones(2, 1)
    corrected = [Calibration(posterior_scale=0.0, temperature=1.5)(draws[0])]
    before = split_uncertainty(draws, weights)
    after = split_uncertainty(corrected, weights, posterior=draws)
    total = split_uncertainty(corrected, weights)
    if kind == "real":
        share = [(f["epistemic_std"] / f["std"]) ** 2 for f in (before, after)]
        torch.testing.assert_close(after["std"], total["std"])
        assert (total["epistemic_std"] < 1e-3).all()
    else:
        share = [f["mutual_information"] / f["entropy"] for f in (before, after)]
        torch.testing.assert_close(after["entropy"], total["entropy"])
        assert (total["mutual_information"] < 1e-3).all()
    torch.testing.assert_close(*share)
    assert (share[0] > 0.1).all()


@pytest.mark.parametrize(
    "draws",
    [
        StudentT(torch.tensor(1.5), torch.zeros(4, 1, 1)),  # its variance is infinite
        Poisson(torch.zeros(4, 1, 1)),
        Categorical(logits=torch.tensor([120.0, 0.0]).expand(4, 1, 1, 2)),
    ],
)
def test_nothing_is_removable_where_draws_agree(draws):
    found = split_uncertainty([draws], torch.ones(1, 1), posterior=[draws])
    unknown = found.get("epistemic_std", found.get("mutual_information"))
    assert unknown.item() == 0.0
    assert not any(value.isnan().any() for value in found.values())


def test_the_place_of_counts_is_uniform():
    rate = torch.full((1, 1, 4000), 1.5)  # many zeros
    y = torch.poisson(rate[0], generator=torch.Generator().manual_seed(0))
    draws = [OverdispersedPoisson(rate.expand(5, 1, 4000))]
    found = summarize_draws(draws, torch.ones(1, 1), y, torch.Generator().manual_seed(1))
    assert stats.kstest(found["pit"].flatten(), "uniform").pvalue > 1e-3


def test_round_trips(of_stack, tmp_path):
    tree = of_stack[3].filter(lambda node: "pooled" not in node.path and "hier" not in node.path)
    write_netcdf(tree, tmp_path / "tree.nc")
    xr.testing.assert_identical(read_netcdf(tmp_path / "tree.nc"), tree)
    assert [path.name for path in tmp_path.iterdir()] == ["tree.nc"]
    whole = (tmp_path / "tree.nc").read_bytes()
    for broken in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "broken.nc").write_bytes(broken)
        with pytest.raises(ValueError, match=r"broken\.nc cannot be read as a DataTree"):
            read_netcdf(tmp_path / "broken.nc")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_netcdf(tmp_path / "none.nc")


@pytest.mark.filterwarnings("ignore")  # zarr has no standard for texts yet
def test_round_trip_by_zarr(of_stack, tmp_path):
    tree = of_stack[3]["shared"].copy()
    tree.name = None  # a root has none
    tree.to_zarr(tmp_path / "tree.zarr")
    with xr.open_datatree(tmp_path / "tree.zarr", engine="zarr") as read:
        xr.testing.assert_identical(read.load(), tree)


@pytest.mark.filterwarnings("ignore")  # of few draws, and of weights that are always 0
def test_arviz_takes_it(of_stack):
    tree = of_stack[3]["shared"]
    assert "w_sources[7, base]" in az.summary(tree, var_names=["w_sources"]).index
    plain = az.loo(tree)
    found = tree["sample_stats"]
    better = az.loo_approximate_posterior(tree, log_p=found["log_p"], log_q=found["log_q"])
    assert plain.n_data_points == better.n_data_points == 30 and np.isfinite(better.elpd)
    assert az.plot_forest(tree, var_names=["w_sources"]) is not None


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2)).astype(np.float32)
    return X, 100 + 10 * X[:, 0] + rng.normal(size=40), np.array([30, 10, 20, 10] * 10)


def test_a_regressor_is_in_the_users_units(table):
    X, y, tasks = table
    y = np.where(np.arange(40) == 3, np.nan, y)
    with pytest.warns(UserWarning, match="1 rows without a target"):
        reg = VMTLRegressor(replace(SHARED, fitting=QUICK), num_samples=300).fit(X, y, tasks)
        tree = reg.to_datatree(X, y, tasks, rows=table_rows(table), num_samples=300)
    with pytest.warns(UserWarning, match="Task 10 has .* rows here and had .* in the fit"):
        reg.to_datatree(X[:20], y[:20], tasks[:20], num_samples=30)
    known = np.flatnonzero(~np.isnan(y))
    assert tree["log_likelihood"]["row"].values.tolist() == known.tolist()
    np.testing.assert_array_equal(tree["observed_data"]["y"], y[known])
    np.testing.assert_array_equal(tree["log_likelihood"]["task"], tasks[known])
    assert tree["posterior"]["task"].values.tolist() == [10, 20, 30] == list(reg.tasks_)
    assert tree["posterior"]["source"].values.tolist() == ["10", "20", "30", "base"]
    assert tree["posterior"]["feature"].values.tolist() == ["x0", "x1", "intercept"]
    assert tree["posterior"].attrs["units"] == "standardized"
    found = tree["predictions"].to_dataset()
    Xt, yt, ts = table_rows(table)
    mean, std, (low, high) = reg_predict(reg, Xt, ts)
    np.testing.assert_array_equal(found["y"], yt)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(found["std"], std, rtol=1e-4)
    np.testing.assert_allclose([found["lower"], found["upper"]], [low, high], rtol=1e-4)
    # draws that are not the same: 300 of a log density that varies by less than 1
    density = logsumexp(tree["log_likelihood"]["y"].values[0], axis=0) - np.log(300)
    assert np.abs(density - reg.log_density(X[known], y[known], tasks[known])).max() < 0.3
    off = tree["posterior_predictive"]["y"].mean(("chain", "draw")) - y[known]
    assert abs(off).mean() < y[known].std()
    weights = tree["posterior"]["w_sources"].mean(("chain", "draw"))
    order = reg._task_order()
    expected = relatedness(reg.fitted_.member.guide, "w").mean(0)[order][:, [*order, -1]]
    np.testing.assert_allclose(weights, expected, atol=0.1)  # 300 and 1000 draws


def table_rows(table):
    X, y, tasks = table
    return X[::-7], y[::-7], tasks[::-7]


def reg_predict(reg, X, tasks):
    mean, std, both = reg.predict(X, tasks, return_std=True, quantiles=[0.05, 0.95])
    return mean, std, both.T


def test_a_classifier_has_the_users_labels(table):
    X, y, tasks = table
    names = np.where(y > 100, "tall", "small")
    clf = VMTLClassifier(replace(SHARED, fitting=QUICK)).fit(X, names, tasks)
    new = X[:5], names[:5], tasks[:5]
    tree = clf.to_datatree(X, names, tasks, rows=new, num_samples=200)
    proba = clf.predict_proba(X[:5], tasks[:5])
    np.testing.assert_allclose(
        tree["predictions"]["proba"].sel({"class": "tall"}), proba[:, 1], atol=1e-5
    )
    labels = json.loads(tree["predictions"]["y"].attrs["classes"])
    assert [labels[code] for code in tree["predictions"]["y"].values] == names[:5].tolist()
    with pytest.raises(ValueError, match="rows has rows of task 99, which is not in the fit"):
        clf.to_datatree(X, names, tasks, rows=(X[:1], names[:1], [99]))
