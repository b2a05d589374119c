"""Checkpoints: a fit that is cut off ends in the numbers of one that is not."""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import GaussianSumPool, RandomRows, RandomTasks, TaskData, fit
from pyro_vmtl.inference import checkpoint as module
from pyro_vmtl.inference.adam import Adam
from pyro_vmtl.inference.checkpoint import Checkpoint, CheckpointError
from pyro_vmtl.methods.presets import HIERARCHICAL, SHARED, presets


class KilledError(Exception):
    pass


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 3, generator=generator)
    y = (X.sum(1) + torch.randn(60, generator=generator) > 0).tolist()
    return TaskData.classification(X, y, [i % 4 for i in range(60)]).with_intercept()


STEPS = 80


def preset(base=SHARED, **fitting):
    return replace(base, fitting={"num_steps": STEPS, **fitting})


def cut_off(method, data, folder, monkeypatch, *, writes):
    """Fit, and stop right after so many checkpoints, as a killed process does."""
    write, left = Checkpoint.write, [writes]

    def writing(self, progress):
        write(self, progress)
        left[0] -= 1
        if not left[0]:
            raise KilledError

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(Checkpoint, "write", writing)
        method.fit(data, checkpoints=folder)


def assert_same(one, other):
    for a, b in zip(one.guide.state_dict().items(), other.guide.state_dict().items(), strict=True):
        assert a[0] == b[0] and torch.equal(a[1], b[1]), a[0]
    assert torch.equal(one.result.history.loss, other.result.history.loss)
    assert torch.equal(one.result.history.step, other.result.history.step)
    assert torch.equal(one.result.history.snapshot_step, other.result.history.snapshot_step)
    for kind in ("log_likelihood", "kl", "relatedness"):
        for site, values in getattr(one.result.history, kind).items():
            assert torch.equal(values, getattr(other.result.history, kind)[site])
    assert one.result.stopped == other.result.stopped


@pytest.mark.parametrize(
    "method",
    [
        preset(),
        preset(HIERARCHICAL),
        preset(batches=RandomRows(5)),
        preset(tasks=RandomTasks(2)),
        # tasks are alone in the first 16 steps
        preset(replace(SHARED, sharing={})),
        preset(replace(SHARED, sharing={"weights": "concrete"}), tasks=RandomTasks(2)),
        replace(presets("classification")["vmtl"], latent_size=3, fitting={"num_steps": STEPS}),
    ],
    ids=["shared", "hierarchical", "batches", "tasks", "alone", "alone-tasks", "representations"],
)
def test_a_fit_goes_on_to_the_same_numbers(method, data, tmp_path, monkeypatch):
    whole = method.fit(data)
    monkeypatch.setattr(module, "EVERY", 0.0)
    for writes in (1, 7):  # at steps 0 and 60: Pyro's step, and a recorded one
        folder = tmp_path / str(writes)
        cut_off(method, data, folder, monkeypatch, writes=writes)
        calls = []
        with monkeypatch.context() as patched:
            patched.setattr(Adam, "step", _counting(Adam.step, calls))
            again = method.fit(data, checkpoints=folder)
            assert_same(whole, again)
            done = 1 + 10 * (writes - 1)
            assert len(calls) == STEPS - done  # it did not begin anew
            once_more = method.fit(data, checkpoints=folder)  # a fit that is over is read
        assert_same(whole, once_more)
        assert len(calls) == STEPS - done


def _counting(function, calls):
    def counted(*args, **kwargs):
        calls.append(1)
        return function(*args, **kwargs)

    return counted


def test_a_settled_fit_that_is_cut_off_while_it_cools_down(data, tmp_path, monkeypatch):
    method = replace(SHARED, fitting={"num_steps": 1500})
    whole = method.fit(data)
    assert whole.result.stopped == "settled"
    monkeypatch.setattr(module, "EVERY", 0.0)
    steps = len(whole.result.history.loss)
    cut_off(method, data, tmp_path, monkeypatch, writes=(steps - 100) // 10)
    assert_same(whole, method.fit(data, checkpoints=tmp_path))


def test_a_checkpoint_of_another_fit_is_refused(data, tmp_path):
    method = preset(num_steps=20)
    method.fit(data, checkpoints=tmp_path)
    others = [
        (method, replace(data, x=data.x + 1e-3), 0),
        (method, replace(data, weight=torch.ones(data.mask.shape)), 0),
        (preset(num_steps=20, learning_rate=0.01), data, 0),
        (preset(num_steps=20, batches=RandomRows(3)), data, 0),
        (replace(method, kl_weights={"w": 0.3}), data, 0),
        (replace(method, sharing={**method.sharing, "min_base_weight": 0.0}), data, 0),
        (replace(method, sharing={**method.sharing, "weights": "softmax"}), data, 0),
        (replace(method, sharing={**method.sharing, "detach_sources": True}), data, 0),
        (replace(method, sharing={**method.sharing, "pool": GaussianSumPool}), data, 0),
        (replace(method, num_particles=2), data, 0),
        (replace(method, num_particles=2, num_draws={"w": 1}), data, 0),
        (method, data, 1),
    ]
    for other, rows, seed in others:
        with pytest.raises(CheckpointError, match="to another fit: rows, settings or versions"):
            other.fit(rows, seed=seed, checkpoints=tmp_path)
    assert_same(method.fit(data), method.fit(data, checkpoints=tmp_path))


@pytest.mark.parametrize("content", [b"", b"junk" * 100, None])
def test_a_broken_checkpoint_is_refused(content, data, tmp_path):
    method = preset(num_steps=20)
    method.fit(data, checkpoints=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-50] if content is None else content)
    with pytest.raises(CheckpointError, match=r"fit.pt is not a checkpoint .* Start again"):
        method.fit(data, checkpoints=tmp_path)


def test_a_write_that_fails_leaves_the_old_checkpoint(data, tmp_path, monkeypatch):
    method = preset()
    monkeypatch.setattr(module, "EVERY", 0.0)
    cut_off(method, data, tmp_path, monkeypatch, writes=3)
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()

    def full(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(module.torch, "save", full)
        method.fit(data, checkpoints=tmp_path)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]
    assert_same(method.fit(data, checkpoints=tmp_path), preset().fit(data))


def test_tensors_and_settings_of_a_users_program_count(tmp_path):
    class Model(torch.nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def forward(self, x, y):
            w = pyro.sample("w", dist.Normal(0.0, self.scale))
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)

    x = torch.linspace(-1, 1, 9)
    path = tmp_path / "fit.pt"

    def fitted(scale, y):
        model = Model(scale)
        fit(model, AutoNormal(model), x, y, num_steps=30, checkpoint=path)

    fitted(1.0, 2 * x)
    fitted(1.0, 2 * x)
    for scale, y in ((1.0, -2 * x), (0.01, 2 * x)):
        with pytest.raises(CheckpointError, match="to another fit"):
            fitted(scale, y)
