"""Some tasks at a time: blocks add up to the whole step, and random tasks are unbiased."""

from dataclasses import replace
from itertools import combinations, repeat

import pyro
import pytest
import torch
from problems import F64, classifier, randomize_sources
from pyro.infer.autoguide import AutoNormal
from single_presets import single_presets

from benchmarks.speed.memory import peak_bytes
from pyro_vmtl import (
    GaussianSumPool,
    LinearPool,
    LogarithmicPool,
    MeanFieldELBO,
    RandomRows,
    RandomTasks,
    TaskBlocks,
    TaskData,
    fit,
    share,
)
from pyro_vmtl.data.plates import some_tasks, subsample_tasks
from pyro_vmtl.data.task_batches import Part
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.inference.step import Step
from pyro_vmtl.methods.presets import presets
from pyro_vmtl.models import LinearRegressor, TaskNoise, ZeroMeanNormal

T = 5


@pytest.fixture
def five():
    """Five tasks of 1 to 5 rows."""
    generator = torch.Generator().manual_seed(0)
    tasks = [t for t in range(T) for _ in range(t + 1)]
    X = torch.randn(len(tasks), 3, generator=generator, dtype=F64)
    y = torch.arange(len(tasks)) % 3
    return TaskData.classification(X, y, tasks, classes=[0, 1, 2])


@pytest.fixture
def no_chance(monkeypatch):
    """Every draw from a normal is 0.3 standard deviations above its mean."""
    monkeypatch.setattr(
        "torch.distributions.normal._standard_normal",
        lambda shape, dtype, device: torch.full(shape, 0.3, dtype=dtype, device=device),
    )


def shared(model, guide, data, **settings):
    """Share, with points as source weights."""
    model, guide = share(model, guide, sites=["w"], weights="softmax", **settings)
    guide(data)
    randomize_sources(guide)
    return MeanFieldELBO()(model, guide)


def regression(data):
    """The same rows with real targets, and programs with a noise for each task."""
    data = replace(data, y=data.x.sum(-1), classes=None)
    torch.manual_seed(0)
    model = LinearRegressor(ZeroMeanNormal([3]), TaskNoise(T)).double()
    guide = MeanFieldNormal({"w": [3]}, T, init_loc_scale=1.0).double()
    with torch.no_grad():
        model.noise.raw_noise_scale.uniform_(-1, 1)
    return data, model, guide


def evaluate(loss_of, data, tasks=None):
    step = Step(loss_of, (data,), tasks=tasks)
    with isolated(0):
        loss, _ = step()
    return loss, [p.grad for p in step.parameters]


def assert_same(one, other):
    torch.testing.assert_close(one[0], other[0], rtol=1e-12, atol=0)
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pool", [LinearPool, LogarithmicPool, GaussianSumPool])
@pytest.mark.parametrize("transfer", ["source", "dimension"])
@pytest.mark.parametrize("kind", ["classes", "real"])
@pytest.mark.usefixtures("no_chance")
def test_blocks_of_tasks_add_up_and_random_tasks_are_right_on_average(five, pool, transfer, kind):
    data, (model, guide) = five, classifier(five)
    if kind == "real":
        data, model, guide = regression(five)
    loss_of = shared(model, guide, data, pool=pool, transfer=transfer)
    whole = evaluate(loss_of, data)
    assert_same(evaluate(loss_of, data, TaskBlocks(2)), whole)
    # the mean over all pairs that RandomTasks(2) may draw
    pairs = [torch.tensor(pair) for pair in combinations(range(T), 2)]
    drawn = [
        evaluate(loss_of, data, lambda _, pair=pair: repeat([Part(pair, T)])) for pair in pairs
    ]
    mean = [torch.stack(column).mean(0) for column in zip(*(g for _, g in drawn), strict=True)]
    assert_same((torch.stack([loss for loss, _ in drawn]).mean(), mean), whole)


@pytest.mark.usefixtures("no_chance")
def test_replayed_blocks_stay_the_blocks_they_are(five):
    loss_of = shared(*classifier(five), five)
    whole, _ = evaluate(loss_of, five)
    step = Step(loss_of, (five,), tasks=TaskBlocks(2))
    step.recording = True
    for _ in range(3):
        with validation(False):
            loss, _ = step()
        torch.testing.assert_close(loss, whole, rtol=1e-12, atol=0)


def test_unequal_tasks_go_into_blocks_of_their_own(monkeypatch):
    counts = [3, 400, 2, 380, 5]
    tasks = [t for t, count in enumerate(counts) for _ in range(count)]
    data = TaskData.regression(torch.zeros(len(tasks), 10), torch.zeros(len(tasks)), tasks)

    def blocks(num_tasks=512):
        parts = next(TaskBlocks(num_tasks)(data))
        return [(part.tasks.tolist(), part.num_rows) for part in parts]

    assert blocks() == [([0, 1, 2, 3, 4], 400)]  # what it would save is not worth a block
    monkeypatch.setattr("pyro_vmtl.data.task_batches.BLOCK_COST", 5000)
    assert blocks() == [([1, 3], 400), ([0, 2, 4], 5)]
    assert blocks(2) == [([1, 3], 400), ([0, 4], 5), ([2], 2)]
    monkeypatch.setattr("pyro_vmtl.data.task_batches.BLOCK_COST", 0)
    assert [rows for _, rows in blocks()] == [400, 380, 5, 3, 2]


@pytest.mark.usefixtures("no_chance")
def test_blocks_of_unequal_tasks_add_up(five, monkeypatch):
    monkeypatch.setattr("pyro_vmtl.data.task_batches.BLOCK_COST", 0)  # a block for each task
    for data, model, guide in [(five, *classifier(five)), regression(five)]:
        loss_of = shared(model, guide, data)
        assert_same(evaluate(loss_of, data, TaskBlocks(99)), evaluate(loss_of, data))


def test_random_tasks_are_all_as_likely():
    torch.manual_seed(0)
    counts = torch.zeros(6)
    six = TaskData.regression(torch.zeros(6, 1), torch.zeros(6), range(6))
    for [part], _ in zip(RandomTasks(2)(six), range(3000), strict=False):
        tasks = part.tasks
        assert tasks.tolist() == sorted(set(tasks.tolist())) and len(tasks) == 2
        counts[tasks] += 1
    # binomial(3000, 1/3) has a standard deviation of 26
    assert (counts - 1000).abs().max() < 5 * 26
    assert next(RandomTasks(9)(six))[0].tasks.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_block_of_all_tasks_is_the_step_without_blocks(five):
    preset = presets("classification")["shared"].many_features
    model, guide = preset.programs(five)
    loss_of = MeanFieldELBO()(model.double(), guide.double())
    guide(five)
    for step, other in [(TaskBlocks(T), None), (TaskBlocks(99), None)]:
        one, two = evaluate(loss_of, five, step), evaluate(loss_of, five, other)
        assert torch.equal(one[0], two[0])
        assert all(torch.equal(a, b) for a, b in zip(one[1], two[1], strict=True))


@pytest.mark.parametrize("tasks", [RandomTasks(2), TaskBlocks(2)])
@pytest.mark.parametrize("name", ["shared", "vmtl", "vmtl-ac", "stl", "vstl", "official"])
def test_presets_fit_some_tasks_at_a_time(five, name, tasks):
    preset = single_presets("classification")[name]
    size = None if preset.latent_size is None else 3
    fitting = {**preset.fitting, "num_steps": 6, "tasks": tasks}
    hidden = tuple(4 for _ in preset.hidden)
    preset = replace(preset, latent_size=size, hidden=hidden, fitting=fitting)
    fitted = preset.fit(replace(five, x=five.x.float()))
    history = fitted.result.history
    assert torch.isfinite(history.loss).all()
    torch.testing.assert_close(
        sum(history.kl.values()) - history.log_likelihood["y"], history.loss[history.step]
    )


@pytest.mark.usefixtures("no_chance")
def test_batches_of_rows_and_of_tasks_go_together(five):
    model, guide = classifier(five)
    loss_of = shared(model, guide, five)
    step = Step(loss_of, (five,), RandomRows(2), TaskBlocks(2))
    step.recording = True
    with isolated(0), validation(False):
        losses = torch.stack([step()[0] for _ in range(500)])
    whole, _ = evaluate(loss_of, five)
    assert (losses.mean() - whole).abs() < 5 * losses.std() / 500**0.5


def test_a_guide_of_some_tasks_must_know_all_posteriors(five):
    model, _ = classifier(five)
    _, shared_guide = share(model, AutoNormal(model), sites=["w"])
    shared_guide(five)
    with some_tasks(torch.tensor([0, 2])), pytest.raises(ValueError, match="takes 5 tasks"):
        shared_guide(five)

    def ignorant(data):
        with pyro.plate("task", T, dim=-2):
            loc = pyro.subsample(torch.zeros(T, 1, 3, 3, dtype=F64), event_dim=2)
            pyro.sample("w", pyro.distributions.Normal(loc, 1.0).to_event(2))

    _, shared_guide = share(model, ignorant, sites=["w"])
    shared_guide(five)
    with (
        some_tasks(torch.tensor([0, 2])),
        pytest.raises(ValueError, match="2 of 5 tasks at site 'w', and its guide has the"),
    ):
        shared_guide(five)


def test_tasks_are_taken_from_rows():
    def model():
        with pyro.plate("task", 2):
            pyro.sample("w", pyro.distributions.Normal(torch.zeros(2), 1.0))

    with pytest.raises(ValueError, match=r"tasks is RandomTasks.*expected a TaskData among"):
        fit(model, AutoNormal(model), tasks=RandomTasks(1))


@pytest.mark.parametrize("kind", [RandomTasks, TaskBlocks])
def test_numbers_of_tasks_are_positive(kind):
    with pytest.raises(ValueError, match="num_tasks is 0"):
        kind(0)


def test_a_site_of_one_number_and_tasks_without_rows(five):
    def model(data):
        with pyro.plate("task", T, dim=-2):
            m = pyro.sample("m", pyro.distributions.Normal(torch.zeros(()), 1.0))
            rows = subsample_tasks(data)
            with pyro.plate("data", rows.num_rows, dim=-1), pyro.poutine.mask(mask=rows.mask):
                pyro.sample("y", pyro.distributions.Normal(m, 1.0), obs=rows.y)

    data = regression(five)[0]
    data = data.new_rows(data.x[4].float(), [4] * 5, data.y[4].float())  # only task 4 has rows
    for tasks in (None, TaskBlocks(1), RandomTasks(2)):
        pair = share(model, MeanFieldNormal({"m": ()}, T), sites=["m"])
        assert torch.isfinite(fit(*pair, data, tasks=tasks, num_steps=4).history.loss).all()


def test_blocks_lower_the_memory_of_a_fit():
    num_tasks = 400
    data = TaskData.regression(torch.randn(num_tasks, 3), torch.randn(num_tasks), range(num_tasks))

    def peak(tasks):
        model, guide = presets("regression")["shared"].many_features.programs(data)
        return peak_bytes(lambda: fit(model, guide, data, num_steps=2, tasks=tasks))

    # The logits of all pairs of tasks stay, with gradient and moments; so do posteriors of all.
    assert peak(TaskBlocks(40)) < 0.7 * peak(None)
