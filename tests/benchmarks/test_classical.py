"""Data sets of many groups and few features, and the linear mixed model beside the default."""

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.command import app
from benchmarks.datasets import Curves, GroupedTable, RandomSlopes
from benchmarks.datasets.tables import TABLES
from benchmarks.mixed_model import linear_mixed_model


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_split_within_groups(table):
    split = GroupedTable(table=table).split(0)
    assert set(split.tasks_test) <= set(split.tasks_train)
    assert not set(split.origin_train) & set(split.origin_test)
    np.testing.assert_allclose(split.X_train.mean(axis=0), 0.0, atol=1e-6)
    assert np.isfinite(split.X_test).all()
    if TABLES[table].kind == "classification":
        assert {*split.y_train} == {*split.y_test} == {"N", "Y"}
    else:
        assert np.isfinite(split.y_test).all()
    rows = len(split.y_train) / (len(split.y_train) + len(split.y_test))
    assert abs(rows - TABLES[table].train) < 0.06  # groups have whole numbers of rows


def test_tables_have_the_features_that_their_columns_say():
    widths = {"Contraception": 6, "guImmun": 15, "epil": 5, "grouseticks": 3}
    for table, width in widths.items():
        assert GroupedTable(table=table).split(0).X_train.shape[1] == width
    X = GroupedTable(table="grouseticks").split(0).X_train
    assert [len(np.unique(column)) for column in X.T[1:]] == [2, 2]  # two indicators of three years


def test_rows_for_validation_are_training_rows():
    table = GroupedTable(table="Produc")
    split, validation = table.split(1), table.split(1, validation=True)
    both = {*validation.origin_train, *validation.origin_test}
    assert both == set(split.origin_train)


def test_an_unknown_table_is_refused():
    with pytest.raises(ValueError, match="table is 'iris', expected one of sleepstudy"):
        GroupedTable(table="iris")


def test_random_slopes_are_those_of_the_text():
    split = RandomSlopes(tasks=400, rows=12, width=6).split(0)
    assert split.X_train.shape == (4800, 6) and split.X_test.shape == (8000, 6)
    X, y = split.X_train.reshape(400, 12, 6), split.y_train.reshape(400, 12)
    design = np.concatenate([X, np.ones((400, 12, 1))], axis=2)
    w = np.stack([np.linalg.lstsq(x, t, rcond=None)[0] for x, t in zip(design, y, strict=True)])
    var = np.sort(w[:, :6].var(axis=0))
    # two of six do not vary: the variance of least squares is E[sigma^2] / (12 - 7 - 1), with 0.49
    # exp(2 * 0.09) for the noise; 400 tasks have a relative standard error of 0.1 or so
    expected = 0.49 * np.exp(0.18) / 4
    np.testing.assert_allclose(var[:2], expected, rtol=0.35)
    np.testing.assert_allclose(w[:, 6].var(), 1 + expected, rtol=0.35)


def test_curves_are_friedmans_of_other_features_in_each_group():
    split = Curves(tasks=40, rows=50, groups=2, width=6).split(0)
    assert split.X_train.shape == (2000, 6) and split.X_test.shape == (1600, 6)
    x = split.X_train / np.sqrt(12) + 0.5
    assert x.min() >= 0 and x.max() <= 1
    X, y = x.reshape(40, 50, 6), split.y_train.reshape(40, 50)
    y = y - y.mean(axis=1, keepdims=True)
    # the third feature of a group has the effect c (x - 0.5)^2, c about 20: its correlation is
    # that of sd 20 / sqrt(180) = 1.5 among a sd of 5; of a feature without effect 0, +- 0.03
    square = (X - 0.5) ** 2
    found = [
        [np.corrcoef(square[group::2, :, f].ravel(), y[group::2].ravel())[0, 1] for f in range(6)]
        for group in range(2)
    ]
    curved = np.argmax(found, axis=1)
    assert curved[0] != curved[1]
    assert np.max(found, axis=1).min() > 0.2
    assert len(set(split.tasks_train)) == 40


def test_the_mixed_model_finds_random_slopes():
    split = RandomSlopes(tasks=50, rows=10, width=3).split(0)
    rows = split.X_train, split.y_train, split.tasks_train, split.X_test, split.tasks_test
    mean, std = linear_mixed_model(*rows)
    assert np.mean((mean - split.y_test) ** 2) / split.y_test.var() < 0.5
    inside = np.abs(mean - split.y_test) < 1.645 * std
    assert 0.84 < inside.mean() < 0.95


@pytest.mark.parametrize(
    ("table", "methods", "metrics"),
    [
        ("sleepstudy", "mixed-model,linear-mixed-model", ["nmse", "nll", "in 90 %"]),
        ("Contraception", "pooled,linear-mixed-model", ["accuracy", "nll", "ece"]),
        ("epil", "shared,linear-mixed-model", ["nmse", "nll", "in 90 %"]),
    ],
)
def test_the_command_compares_them(table, methods, metrics, tmp_path):
    args = ["grouped-table", "--table", table, "--seeds", "1", "--jobs", "1"]
    result = CliRunner().invoke(app, [*args, "--methods", methods, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "linear-mixed-model" in result.output
    for metric in metrics:
        assert metric in result.output
