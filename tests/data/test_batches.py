"""Batches of rows: who is in them, and that their ELBO is right."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import F64, classifier
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import BalancedRows, MeanFieldELBO, RandomRows, TaskData, fit
from pyro_vmtl.data.plates import scaled_rows
from pyro_vmtl.handlers.isolation import validation


def test_random_rows_are_rows_of_the_task_without_repeats(ragged):
    torch.manual_seed(0)
    seen = [set(), set(), set()]
    for _ in range(50):
        batch, weight = RandomRows(3)(ragged)
        assert batch.mask.tolist() == [[True] * 3, [True, True, False], [True] * 3]
        torch.testing.assert_close(weight, torch.tensor([5 / 3, 1.0, 4 / 3], dtype=F64))
        for t in range(3):
            rows = batch.row[t][batch.mask[t]].tolist()
            assert len(set(rows)) == len(rows)
            seen[t] |= set(rows)
            for n, row in enumerate(rows):
                place = (ragged.row[t] == row).nonzero().item()
                torch.testing.assert_close(batch.x[t, n], ragged.x[t, place])
                assert batch.y[t, n] == ragged.y[t, place]
    assert [len(s) for s in seen] == [5, 2, 4]
    assert RandomRows(3, max_total=7)(ragged)[0].mask.sum(1).tolist() == [2, 2, 2]
    assert RandomRows(3, max_total=1)(ragged)[0].mask.sum(1).tolist() == [1, 1, 1]


def test_the_elbo_of_random_rows_is_unbiased(ragged):
    model, guide = classifier(ragged)
    elbo = MeanFieldELBO()

    def loss(data, weight=None):
        torch.manual_seed(7)  # the same w for all batches: only the rows differ
        with scaled_rows(weight), validation(False):
            return elbo.loss(model, guide, data)

    elbo.loss(model, guide, ragged)  # with the checks of Pyro, once
    whole = loss(ragged)
    torch.manual_seed(0)
    state, losses, known = torch.get_rng_state(), [], {}
    for _ in range(1500):
        torch.set_rng_state(state)
        batch, weight = RandomRows(2)(ragged)
        state = torch.get_rng_state()
        rows = tuple(batch.row.sort(1).values.flatten().tolist())
        if rows not in known:  # there are 10 * 1 * 6 batches
            known[rows] = loss(batch, weight)
        losses.append(known[rows])
    assert len(known) == 60
    losses = torch.tensor(losses)
    assert losses.std() > 0.1
    assert abs(losses.mean() - whole) < 5 * losses.std() / len(losses) ** 0.5  # 5 standard errors


def test_balanced_rows_have_as_many_of_every_class():
    X = torch.arange(9.0)[:, None]
    labels = ["cat"] * 5 + ["dog"] + ["dog", "dog", "dog"]
    data = TaskData.classification(X, labels, ["home"] * 6 + ["zoo"] * 3)
    torch.manual_seed(0)
    seen = set()
    for _ in range(100):
        batch, weight = BalancedRows(4)(data)
        torch.testing.assert_close(weight, torch.tensor([1 / 8, 1 / 4]))  # the zoo has no cats
        home, zoo = (batch.x[t, :, 0][batch.mask[t]].tolist() for t in (0, 1))
        assert batch.y[0].tolist() == [0] * 4 + [1] * 4
        assert batch.y[1].tolist() == [0] * 4 + [1] * 4 and not batch.mask[1, :4].any()
        cats = home[:4]
        assert len(set(cats)) == 4 and set(cats) <= {0, 1, 2, 3, 4}  # enough of them: no repeats
        assert home[4:] == [5.0] * 4
        assert set(zoo) == {6.0, 7.0, 8.0}  # three rows for four places: one comes twice
        seen |= set(cats)
    assert seen == {0, 1, 2, 3, 4}


def test_a_weighed_loss_is_a_mean_over_rows(ragged):
    model, _ = classifier(ragged)
    torch.manual_seed(0)
    batch, weight = BalancedRows(2)(ragged)
    w = torch.randn(3, 1, 3, 3, dtype=F64)
    with scaled_rows(weight):
        trace = pyro.poutine.trace(pyro.poutine.condition(model, {"w": w})).get_trace(batch)
    trace.compute_log_prob()
    logits = batch.x @ w.squeeze(1).mT
    each = -dist.Categorical(logits=logits).log_prob(batch.y)
    means = [each[t][batch.mask[t]].mean() for t in range(3)]
    torch.testing.assert_close(trace.nodes["y"]["log_prob_sum"], -sum(means))
    # sites outside of the plate over rows are as they were
    torch.testing.assert_close(trace.nodes["w"]["log_prob_sum"], model.prior().log_prob(w).sum())


def test_what_cannot_be_weighed_is_refused(ragged):
    for wrong in (lambda: RandomRows(0), lambda: RandomRows(1, 0), lambda: BalancedRows(0)):
        with pytest.raises(ValueError, match="expected at least 1"):
            wrong()
    _, guide = classifier(ragged)
    with pytest.raises(ValueError, match="RandomRows for real targets"):
        BalancedRows(2)(TaskData.regression([[1.0]], [1.0], ["a"]))
    with pytest.raises(ValueError, match="expected a TaskData among the arguments"):
        fit(lambda: None, lambda: None, batches=RandomRows(2))
    with pytest.raises(ValueError, match="no site in a plate 'data'"), scaled_rows(torch.ones(3)):
        guide(ragged)


def test_an_autoguide_of_every_row_cannot_have_batches(ragged):
    def model(data):
        with (
            pyro.plate("task", data.num_tasks, dim=-2),
            pyro.plate("data", data.num_rows, dim=-1),
            pyro.poutine.mask(mask=data.mask),
        ):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            pyro.sample("y", dist.Normal(z, 0.1), obs=data.y)

    with pytest.raises(ValueError, match=r"parameters for every row at site 'z_unconstr"):
        fit(model, AutoNormal(model), ragged, batches=RandomRows(2))


def test_fit_with_batches_is_reproducible_and_learns(ragged):
    histories = []
    for _ in range(2):
        model, guide = classifier(ragged)
        result = fit(model, guide, ragged, batches=RandomRows(2), num_steps=300, seed=3)
        histories.append(result.history.loss)
    assert torch.equal(*histories)
    # measured: 67 at the start, 14 at the end
    assert histories[0][-50:].mean() < 0.5 * histories[0][:20].mean()
