"""Large data: rows drawn in a time that does not grow with them, fits on batches, few held out."""

import gc
import weakref
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyro_vmtl import MeanFieldELBO, RandomRows, TaskData, folds
from pyro_vmtl.data.plates import scaled_rows
from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.inference import progress
from pyro_vmtl.inference.step import Step
from pyro_vmtl.methods import method as method_module
from pyro_vmtl.methods import preset
from pyro_vmtl.methods import stack as stacking
from pyro_vmtl.methods.presets import ALONE, POOLED, SHARED, presets

LENGTHS = (100, 37, 3, 1)


def rows_of(lengths, kind="regression", seed=0):
    """Tasks of these lengths, whose rows are in turn, with two features and the intercept."""
    rng = np.random.default_rng(seed)
    task = rng.permutation(np.repeat(np.arange(len(lengths)), lengths))
    X = rng.standard_normal((len(task), 2))
    w = rng.standard_normal((len(lengths), 2))
    y = (X * w[task]).sum(1) + 0.3 * rng.standard_normal(len(task))
    if kind == "classification":
        return TaskData.classification(X, y > 0, task).with_intercept()
    return TaskData.regression(X, y, task).with_intercept()


def test_each_row_is_as_likely_where_tasks_are_long():
    data, size = rows_of(LENGTHS), 5
    counts = data.mask.sum(1)
    torch.manual_seed(0)
    drawn, draws = torch.zeros(len(data.mask.flatten().nonzero())), 4000
    for _ in range(draws):
        batch, weight = RandomRows(size)(data)
        torch.testing.assert_close(weight * batch.mask.sum(1), counts.to(weight))
        drawn += torch.bincount(batch.row[batch.mask], minlength=len(drawn))
    expected = data.unpad((size / counts).clamp(max=1)[:, None].expand(data.mask.shape))
    # a row is there twice only where two parts meet: the count's variance is at most 0.05 + 0.25
    error = (0.3 / draws) ** 0.5
    assert (drawn / draws - expected).abs().max() < 5 * error
    assert ((drawn / draws)[expected == 1] == 1).all()  # short tasks are there as they are


def test_what_is_drawn_of_long_tasks_are_their_rows():
    data = rows_of(LENGTHS)
    torch.manual_seed(0)
    batch, _ = RandomRows(5)(data)
    assert sorted(batch.mask.sum(1).tolist()) == [1, 3, 5, 5]
    for t in range(4):
        for n in batch.mask[t].nonzero().flatten():
            place = (data.row[t] == batch.row[t, n]).nonzero().item()
            assert torch.equal(batch.x[t, n], data.x[t, place])
            assert batch.y[t, n] == data.y[t, place]
    assert (batch.row[~batch.mask] == -1).all()
    assert (batch.x[~batch.mask] == 0).all()


def test_the_elbo_of_long_tasks_is_unbiased_and_can_be_replayed():
    data = rows_of(LENGTHS)
    with isolated(0):
        model, guide = SHARED.programs(data)
        loss_of = MeanFieldELBO()(model, guide)
        loss_of(data)

    def loss(rows, weight):
        torch.manual_seed(7)  # the same draws of w for all batches: only the rows differ
        with scaled_rows(weight), torch.no_grad(), validation(False):
            return float(loss_of(rows))

    whole, generator = loss(data, None), torch.random.get_rng_state()
    losses = []
    for _ in range(800):
        torch.random.set_rng_state(generator)
        batch = RandomRows(4)(data)
        generator = torch.random.get_rng_state()
        losses.append(loss(*batch))
    assert np.std(losses) > 0.1
    assert abs(np.mean(losses) - whole) < 5 * np.std(losses) / len(losses) ** 0.5

    step = Step(loss_of, (data,), RandomRows(4))
    outcomes = []
    for recording in (False, True):
        step.recording = recording
        with isolated(3), validation(False):
            outcomes.append(step()[0])
    assert torch.equal(*outcomes)


@pytest.mark.parametrize("member", ["shared", "hierarchical", "pooled"])
def test_members_take_batches_of_large_data_only(member, monkeypatch):
    data, seen = rows_of(LENGTHS), []
    monkeypatch.setattr(method_module, "fit", lambda *args, **settings: seen.append(settings))
    monkeypatch.setattr(method_module.Borrowing, "of_programs", lambda *args: None)
    monkeypatch.setattr(method_module, "Member", lambda *args: None)
    monkeypatch.setattr(method_module.Fitted, "of_one", lambda member: None)
    method = presets("regression")["default"].many_features.members[member]
    for large in (data.mask.numel(), data.mask.numel() - 1):
        monkeypatch.setattr(preset, "LARGE", large)
        method.fit(data)
    small, large = seen
    assert "batches" not in small and "learning_rate" not in small
    assert isinstance(large["batches"], RandomRows) and large["learning_rate"] < 0.05


def test_a_fit_of_batches_is_nearly_that_of_all_rows(monkeypatch):
    """Against least squares, in units of its standard error: that is 0.3 / sqrt(4000)."""
    data = rows_of((4000, 4000, 3000))
    monkeypatch.setattr(preset, "LARGE", 10_000)
    large = {**ALONE.fitting_large, "batches": RandomRows(200)}
    method = replace(ALONE, kl_weights={"w": 1.0}, fitting_large=large)
    fitted = method.fit(data)
    loc = next(m for m in fitted.guide.modules() if hasattr(m, "locs")).locs["w"].detach()
    for t in range(3):
        mask = data.mask[t]
        x, y = data.x[t][mask].double(), data.y[t][mask].double()
        expected = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
        # the last steps are of 1e-4 to 1e-2: a batch's noise is about one standard error then
        assert (loc[t, 0] - expected).abs().max() < 6 * 0.3 / 4000**0.5


@pytest.mark.parametrize("large", [False, True])
def test_a_fit_of_large_data_does_not_keep_them(large, monkeypatch):
    data = rows_of(LENGTHS)
    monkeypatch.setattr(preset, "LARGE", 1 if large else 10**6)
    monkeypatch.setattr(method_module, "LARGE", 1 if large else 10**6)
    rows = weakref.ref(data.x)
    gc.disable()
    try:
        replace(ALONE, fitting_large={"num_steps": 70}, fitting={"num_steps": 70}).fit(data)
        del data
        assert (rows() is None) == large  # elsewhere Python frees them when it likes
    finally:
        gc.enable()


def test_some_of_the_rows_held_out_are_given():
    data = rows_of((200, 100, 4), kind="classification")
    every = list(folds(data, 5, seed=3))
    some = list(folds(data, 5, seed=3, enough=16, most=16))  # of 61: a quarter
    assert len(some) == 1
    for (train, held), (same, fewer) in zip(every[:1], some, strict=True):
        assert torch.equal(train.x, same.x) and torch.equal(train.y, same.y)
        given, all_held = (
            [{tuple(x) for x in d.x[t][d.mask[t]].tolist()} for t in range(3)]
            for d in (fewer, held)
        )
        assert all(few <= all_ for few, all_ in zip(given, all_held, strict=True))
        by_task = sorted(map(len, given))
        assert by_task[2] == 10 and by_task[1] == 5 and by_task[0] <= 1
    for (_, held), (_, same) in zip(
        every, folds(data, 5, seed=3, enough=304, most=304), strict=True
    ):
        assert torch.equal(held.x, same.x)  # there are no more


def test_a_stack_predicts_no_more_than_it_needs(monkeypatch):
    quick = replace(POOLED, fitting={"num_steps": 5})
    stack = stacking.Stack({"pooled": quick}, num_folds=3)
    for enough, num_fits, rows in ((60, 1, 60), (100, 1, 100), (150, 2, 200), (301, 3, 300)):
        for name in ("ENOUGH_HELD_OUT", "MAX_HELD_OUT"):
            monkeypatch.setattr(stacking, name, enough)
        fits = []
        held_out, stopped = stack.out_of_fold(rows_of((150, 150)), report=fits.append)
        assert not stopped and len(fits) == num_fits and held_out.y.shape == (rows,)
        assert torch.bincount(held_out.task).tolist() == [rows // 2] * 2


def test_the_bar_of_several_fits_moves_within_a_fit(monkeypatch):
    shown = []

    class Bar:
        def update(self, task, **changes):
            shown.append(changes)

    @contextmanager
    def bar(what, total):
        yield Bar(), 0

    monkeypatch.setattr(progress, "_bar", bar)
    with progress.fits_bar(2, visible=True) as report:
        for name in ("first", "second"):
            report(name)
            with progress.progress_bar(10, visible=False) as step:
                step(5, 10, None)
    with progress.progress_bar(10, visible=False) as step:
        step(5, 10, None)  # the bar of fits is gone
    assert [change["completed"] for change in shown] == [0, 0.5, 1, 1.5, 2]
    assert [change["now"] for change in shown if "now" in change] == ["first", "second", "done"]


def test_a_visible_stack_shows_its_fits(capsys):
    quick = replace(POOLED, fitting={"num_steps": 5})
    stacking.Stack({"pooled": quick}, num_folds=2).fit(rows_of((9, 9)), progress=True)
    shown = capsys.readouterr().err
    assert "3/3" in shown and "done" in shown
