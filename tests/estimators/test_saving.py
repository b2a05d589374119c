"""Estimators in folders: they come back as they were, or not at all."""

import json
import pickle
import random
import shutil
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from numpy.testing import assert_array_equal
from pyro.infer.autoguide import AutoNormal
from safetensors.torch import load_file, save_file

from pyro_vmtl import Stack, share
from pyro_vmtl.estimators import VersionWarning, VMTLClassifier, VMTLRegressor, saving
from pyro_vmtl.methods.method import Programs
from pyro_vmtl.methods.presets import presets

KINDS = {
    "regression": lambda method: VMTLRegressor(method, num_samples=20, random_state=3),
    "classification": lambda method: VMTLClassifier(method, num_samples=20),
    "counts": lambda method: VMTLRegressor(method, likelihood="poisson", num_samples=20),
}


def quick(preset, num_steps=10):
    preset = getattr(preset, "many_features", preset)
    if isinstance(preset, Stack):
        members = {name: quick(member, num_steps) for name, member in preset.members.items()}
        return replace(preset, members=members, num_folds=2)
    if preset.latent_size is not None:
        preset = replace(preset, latent_size=4, hidden=tuple(3 for _ in preset.hidden))
    return replace(preset, fitting={**preset.fitting, "num_steps": num_steps})


def rows(kind, labels=("a", "b", "c")):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(24, 2)) + 5
    y = 10 * X[:, 0] + rng.normal(size=24)
    y = {"regression": y, "classification": y > 50, "counts": rng.poisson(4, 24)}[kind]
    return X, y, [labels[i % 3] for i in range(24)]


def fit(kind, method):
    return KINDS[kind](quick(presets(kind)[method])).fit(*rows(kind))


def everything(fitted, kind):
    X, _, tasks = rows(kind)
    tasks = list(fitted.tasks_[:3]) * 8
    if kind == "classification":
        return fitted.predict_proba(X, tasks)
    return np.column_stack(fitted.predict(X, tasks, return_std=True, quantiles=[0.1, 0.9]))


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *(("regression", name) for name in ("default", "shared", "mixed-model", "vmtl", "stl")),
        *(("classification", n) for n in ("default", "vmtl", "vmtl-ac", "bmtl")),
        *(("classification", name) for name in ("paper", "official", "official-ac")),
        *(("counts", name) for name in ("default", "shared")),
        *(("regression", name) for name in ("vmtl-ac", "paper")),
    ],
)
def test_what_was_saved_predicts_the_same(kind, method, tmp_path, monkeypatch):
    fitted = fit(kind, method)
    fitted.save(tmp_path / "fit")

    def never(*args, **kwargs):
        raise AssertionError("a pickle can execute anything")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, never)
    for name in ("load", "save"):
        monkeypatch.setattr(torch, name, never)
    again = type(fitted).load(tmp_path / "fit")
    assert_array_equal(everything(again, kind), everything(fitted, kind))
    assert again.get_params() == fitted.get_params()
    assert again.tasks_ == fitted.tasks_ and again.task_sizes_ == fitted.task_sizes_
    assert torch.equal(again.history_.loss, fitted.history_.loss)
    a, b = again.relatedness_, fitted.relatedness_
    assert_array_equal(a["mean"], b["mean"])
    if method in ("default", "shared", "mixed-model"):
        X = rows(kind)[0]
        with pytest.warns(UserWarning, match="no such task"):
            new = [e.predict(X, ["new"] * 24) for e in (fitted, again)]
        assert_array_equal(*new)


@pytest.mark.parametrize(
    "labels", [("a", "b", "ß/\n"), (1, 2, 3), (0.5, 1.5, -2.0), (True, False, 7), (1, "1", 0.1)]
)
def test_labels_come_back_as_they_were(labels, tmp_path):
    X, y, tasks = rows("regression", labels)
    fitted = KINDS["regression"](quick(presets("regression")["shared"])).fit(X, y, tasks)
    fitted.save(tmp_path / "fit")
    again = VMTLRegressor.load(tmp_path / "fit").tasks_
    assert again == fitted.tasks_ and set(again) == set(labels)
    assert list(map(type, again)) == list(map(type, fitted.tasks_))


def test_labels_that_json_has_not_are_refused(tmp_path):
    X, y, tasks = rows("regression", [("a", 1), ("a", 2), ("b", 1)])
    fitted = KINDS["regression"](quick(presets("regression")["shared"])).fit(X, y, tasks)
    with pytest.raises(ValueError, match=r"tasks has \('.', .\) \(tuple\), expected strings or nu"):
        fitted.save(tmp_path / "fit")
    assert not list(tmp_path.iterdir())


def test_names_of_columns_come_back(tmp_path):
    pd = pytest.importorskip("pandas")
    X, y, tasks = rows("regression")
    frame = pd.DataFrame(X, columns=["age", "weight"])
    fitted = KINDS["regression"](quick(presets("regression")["shared"])).fit(frame, y, tasks)
    fitted.save(tmp_path / "fit")
    again = VMTLRegressor.load(tmp_path / "fit")
    assert_array_equal(again.predict(frame, tasks), fitted.predict(frame, tasks))
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame[["weight", "age"]], tasks)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Folders of a stack for real targets and a preset for classes, not to be written to."""
    folder = tmp_path_factory.mktemp("saved")
    fit("regression", "default").save(folder / "regression")
    fit("classification", "shared").save(folder / "classification")
    return folder


@pytest.fixture
def saved(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copy")


# Writing


def test_nothing_is_overwritten_unless_asked(saved):
    fitted = VMTLRegressor.load(saved / "regression")
    before = (saved / "regression" / "estimator.json").read_bytes()
    with pytest.raises(FileExistsError, match="exists already"):
        fitted.save(saved / "regression")
    assert (saved / "regression" / "estimator.json").read_bytes() == before
    fitted.save(saved / "regression", overwrite=True)
    (saved / "thesis").mkdir()
    with pytest.raises(FileExistsError, match=r"not written by pyro_vmtl .* has no estimator.json"):
        fitted.save(saved / "thesis", overwrite=True)


@pytest.mark.parametrize("broken", ["write_tensors", "_checksum"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_half_written_is_never_seen(saved, monkeypatch, broken, overwrite):
    fitted = VMTLRegressor.load(saved / "regression")
    names = {path.name for path in saved.iterdir()}
    target = saved / ("regression" if overwrite else "new")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, broken, full)
    with pytest.raises(OSError, match="No space left"):
        fitted.save(target, overwrite=overwrite)
    monkeypatch.undo()
    assert {path.name for path in saved.iterdir()} == names
    VMTLRegressor.load(saved / "regression")


def test_an_estimator_that_is_not_fitted_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        VMTLRegressor().save(tmp_path / "fit")


# Reading what was changed


def edited(folder, change, tensors=None):
    """Change the settings or weights, and compute the right checksum of them."""
    config = json.loads((folder / "estimator.json").read_text())
    del config["checksum"]
    change(config)
    if tensors is not None:
        save_file(tensors, folder / "weights.safetensors")
    config["checksum"] = saving._checksum(config, folder / "weights.safetensors")
    (folder / "estimator.json").write_text(json.dumps(config))


def reshaped(folder, name, change):
    tensors = load_file(folder / "weights.safetensors")
    names = [n for n in tensors if n.endswith(name)]
    assert names
    new = {n: change(v).contiguous() if n in names else v for n, v in tensors.items()}
    edited(folder, lambda config: None, new)


def setting(*path, to):
    def change(config):
        place = config
        for key in path[:-1]:
            place = place[key]
        assert isinstance(place, list) or path[-1] in place
        place[path[-1]] = to

    return lambda folder: edited(folder, change)


def replaced(old, new):
    """Change the text of the settings, and not their checksum."""

    def change(folder):
        path = folder / "estimator.json"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def cut_short(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def one_bit(folder):
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def relinked(path):
    """Move a file elsewhere, and leave a link to it."""
    path.rename(path.parents[1] / "elsewhere")
    path.symlink_to(path.parents[1] / "elsewhere")


MEMBER = ("fitted", "members", "shared")
BROKEN = {
    "cut short": cut_short,
    "one bit": one_bit,
    "no JSON": lambda folder: (folder / "estimator.json").write_text("{"),
    "bytes": lambda folder: (folder / "estimator.json").write_bytes(b"\xff\x00"),
    "deep": lambda folder: (folder / "estimator.json").write_text("[" * 100_000),
    "a list": lambda folder: (folder / "estimator.json").write_text("[]"),
    "null": lambda folder: (folder / "estimator.json").write_text("null"),
    "a number": replaced('"num_samples": 20', '"num_samples": 30'),
    "a label": replaced('"b"', '"B"'),
    "a name": replaced('"checksum"', '"check"'),
    "format 99": setting("format", to=99),
    "format 1": setting("format", to=1),
    "format NaN": setting("format", to=float("nan")),
    "versions": setting("versions", to=3),
    "estimator": setting("estimator", to=["VMTLRegressor"]),
    # changed on purpose, with a new checksum
    "num_features": setting("num_features", to=3),
    "num_features huge": setting("num_features", to=10**15),
    "a task more": setting("tasks", to=["a", "b", "c", "d"]),
    "num_samples": setting("settings", "num_samples", to=-1),
    "setting unknown": setting("settings", to={"learning": 3, "method": "shared"}),
    "fitted": setting("fitted", to=None),
    "no members": setting("fitted", "members", to={}),
    "preset field": setting(*MEMBER, "method", to={"object": "Preset", "latent": 3}),
    "latent": setting(*MEMBER, "method", "latent_size", to=7),
    "another object": setting(*MEMBER, "method", to={"object": "Stack", "members": {"a": 1}}),
    "os.system": setting(*MEMBER, "method", to={"object": "os.system", "command": "true"}),
    "class": setting(*MEMBER, "method", "sharing", to={"pool": {"class": "eval"}}),
    "other weights": lambda folder: reshaped(folder, "locs.w", lambda v: v[:-1]),
    "stack weights": lambda folder: reshaped(folder, "weights", lambda v: v[..., :-1]),
    "NaN": lambda folder: reshaped(folder, "locs.w", lambda v: v * float("nan")),
    "infinite": lambda folder: reshaped(folder, "locs.w", lambda v: v + float("inf")),
    "another dtype": lambda folder: reshaped(folder, "locs.w", lambda v: v.half()),
    "negative weights": lambda folder: reshaped(folder, "weights", lambda v: 1 - 2 * v),
    "no scale": lambda folder: reshaped(folder, "features.scale", lambda v: v * 0),
    "infinite unit": setting("unit", to=float("inf")),
    "negative size": setting("task_sizes", to=[8, -1, 8]),
    "num_samples huge": setting("settings", "num_samples", to=10**9),
    "latent huge": setting(*MEMBER, "method", "latent_size", to=10**12),
    "hidden huge": setting(
        *MEMBER, "method", to={"object": "Preset", "latent_size": 20_000, "hidden": [20_000]}
    ),
    "stopped": setting("fitted", "stopped", to="<script>"),
    "link": lambda folder: relinked(folder / "weights.safetensors"),
    "nothing": lambda folder: edited(folder, lambda config: None, {"a": torch.zeros(1)}),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_was_changed_is_refused(saved, how):
    folder = saved / "regression"
    BROKEN[how](folder)
    with pytest.raises(ValueError) as caught:
        VMTLRegressor.load(folder)
    assert str(folder) in str(caught.value)


def test_swapped_files_are_refused(saved):
    fit("regression", "shared").save(saved / "other")
    shutil.copy(saved / "other" / "weights.safetensors", saved / "regression")
    with pytest.raises(ValueError, match="is not what was saved"):
        VMTLRegressor.load(saved / "regression")


@pytest.mark.parametrize("name", ["estimator.json", "weights.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / "regression" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {name}"):
        VMTLRegressor.load(saved / "regression")
    with pytest.raises(FileNotFoundError, match="is no directory"):
        VMTLRegressor.load(saved / "nowhere")


def test_another_kind_of_estimator_is_named(saved):
    with pytest.raises(ValueError, match=r"holds a VMTLRegressor.* Use VMTLRegressor.load"):
        VMTLClassifier.load(saved / "regression")


def test_a_device_that_is_not_there_is_named(saved):
    with pytest.raises(ValueError, match="device is 'cud', which cannot be used"):
        VMTLRegressor.load(saved / "regression", device="cud")


def test_another_version_is_told(saved):
    folder = saved / "regression"
    edited(folder, lambda config: config["versions"].update(torch="1.0"))
    with pytest.warns(VersionWarning, match=r"written with torch 1\.0"):
        VMTLRegressor.load(folder)


def test_random_changes_of_bytes_are_refused(saved):
    """But for white space, which has no meaning."""
    rng = random.Random(0)
    path = saved / "classification" / "estimator.json"
    text = path.read_bytes()
    content = json.loads(text)
    for _ in range(100):
        changed = bytearray(text)
        changed[rng.randrange(len(changed))] = rng.randrange(256)
        path.write_bytes(changed)
        try:
            unchanged = json.loads(changed.decode()) == content
        except ValueError:
            unchanged = False
        if not unchanged:
            with pytest.raises(ValueError, match=r"estimator\.json"):
                VMTLClassifier.load(path.parent)


# Methods of one's own


def own_programs(data):
    """Return a model of the task means, and its guide."""

    def model(data):
        with pyro.plate("task", data.num_tasks, dim=-2):
            mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
            with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=data.y)

    return share(model, AutoNormal(model), sites=["mean"])


@pytest.mark.parametrize("stacked", [False, True])
def test_programs_of_ones_own_are_passed_to_load(stacked, tmp_path):
    X, y, tasks = rows("regression")
    method = Programs(own_programs, {"num_steps": 20})
    if stacked:
        method = Stack({"own": method, "alone": quick(presets("regression")["shared"])}, 2)
    fitted = KINDS["regression"](method).fit(X, y, tasks)
    fitted.save(tmp_path / "fit")
    named = "Stack" if stacked else "Programs"
    with pytest.raises(ValueError, match=rf"a method of your own \({named}\).* VMTLRegressor.load"):
        VMTLRegressor.load(tmp_path / "fit")
    again = VMTLRegressor.load(tmp_path / "fit", method=method)
    assert_array_equal(everything(again, "regression"), everything(fitted, "regression"))
    assert again.method is method
    assert set(again.to_datatree(X, y, tasks, rows=(X, y, tasks)).children) >= {"predictions"}
