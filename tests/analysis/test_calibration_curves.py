"""Reliability and coverage of predictions, against scipy and predictions that are known."""

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom, binomtest, norm

from pyro_vmtl.analysis import az, expected_calibration_error, plot_coverage, plot_reliability
from pyro_vmtl.analysis.metrics import calibrated_hits, ece_interval, hits_p_value

mpl.use("agg")


def classes(num_rows=2000, right=1.0, seed=0):
    """Probabilities of three classes, and classes that are right `right` times as often."""
    random = np.random.default_rng(seed)
    largest = random.uniform(0.4, 0.95, num_rows)
    proba = np.stack([largest, (1 - largest) / 2, (1 - largest) / 2], 1)
    y = np.where(random.uniform(size=num_rows) < right * largest, 0, 1)
    return proba, y


def tree(**variables):
    dims = {"proba": ("row", "class")}
    made = {name: (dims.get(name, "row"), values) for name, values in variables.items()}
    return xr.DataTree.from_dict({"predictions": xr.Dataset(made)})


def real(num_rows=1000, shift=0.0, width=1.0, seed=0):
    """PIT of predictions N(shift, width^2) where targets are N(0, 1)."""
    y = np.random.default_rng(seed).normal(size=num_rows)
    return tree(y=y, pit=norm.cdf((y - shift) / width))


def inside(ax):
    """Whether all letters are in the figure, up to a pixel of rounding."""
    ax.figure.draw_without_rendering()
    frame = ax.figure.bbox.padded(1)
    legend = ax.get_legend()
    texts = [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
    texts += legend.get_texts() if legend else []
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return all(frame.containsx(b.x0) and frame.containsx(b.x1) for b in boxes) and all(
        frame.containsy(b.y0) and frame.containsy(b.y1) for b in boxes
    )


@pytest.fixture(autouse=True)
def closed():
    yield
    mpl.pyplot.close("all")


def test_the_interval_of_the_calibration_error_holds_the_true_one():
    # Confidence 0.9, right in 70 % of rows: the error of infinitely many rows is 0.2.
    random = np.random.default_rng(0)
    proba, held = np.tile([0.9, 0.1], (200, 1)), 0
    for seed in range(100):
        y = (random.uniform(size=200) > 0.7).astype(int)
        ece, low, high = ece_interval(proba, y, seed=seed, num_resamples=300)
        assert ece == expected_calibration_error(proba, y) and low <= ece <= high
        held += low <= 0.2 <= high
    # 100 intervals of 90 %, less the error of a normal interval of 200 rows, about 1 %.
    assert binom.ppf(0.001, 100, 0.88) <= held <= binom.ppf(0.999, 100, 0.91)


def test_the_interval_shrinks_with_the_root_of_the_rows_and_comes_again():
    few, many = (ece_interval(*classes(n, right=0.8), seed=1) for n in (500, 8000))
    assert (few[2] - few[1]) / (many[2] - many[1]) == pytest.approx(4, rel=0.25)
    assert few == ece_interval(*classes(500, right=0.8), seed=1)
    with pytest.raises(ValueError, match="no rows, expected at least one"):
        ece_interval(np.zeros((0, 2)), np.zeros(0, int))


def test_a_reliability_diagram_shows_bins_and_says_who_is_overconfident():
    proba, y = classes(right=0.8)
    ax = plot_reliability(tree(proba=proba, y=y))
    confidence = proba.max(1)
    points = np.concatenate([c.get_offsets() for c in ax.collections if len(c.get_offsets()) > 1])
    points = points[points[:, 0].argsort()]
    for b, (x, height) in zip(range(4, 10), points, strict=True):
        members = (confidence >= b / 10) & (confidence < (b + 1) / 10)
        assert x == pytest.approx(confidence[members].mean())
        assert height == pytest.approx((y[members] == 0).mean())
    title = ax.get_title("left")
    gap = (confidence - (y == 0)).mean()
    ece = expected_calibration_error(proba, y, num_bins=10)
    assert title.startswith(f"Overconfident by {gap:.1%}\nECE {ece:.3f}, 90% interval")
    assert "6 of 6 bins are off" in ax.texts[0].get_text()
    bars = [c.get_segments() for c in ax.collections if hasattr(c, "get_segments")]
    ends = next(segments for segments in bars if segments)[0][:, 1]
    first = (confidence >= 0.4) & (confidence < 0.5)
    exact = binomtest(int((y[first] == 0).sum()), int(first.sum())).proportion_ci(0.9, "exact")
    np.testing.assert_allclose(ends, [exact.low, exact.high])
    assert inside(ax)


def test_calibrated_classes_are_not_called_overconfident():
    ax, faults = mpl.pyplot.figure().add_subplot(), 0
    for seed in range(40):
        proba, y = classes(300, seed=seed)
        faults += "confident" in plot_reliability(tree(proba=proba, y=y), ax).get_title("left")
    assert faults <= binom.ppf(0.999, 40, 0.1)
    proba, y = classes()
    shy = 0.5 * proba + 0.5 / 3  # the same order, less sure
    assert plot_reliability(tree(proba=shy, y=y)).get_title("left").startswith("Underconfident")


@pytest.mark.parametrize("num_rows", [20, 50, 200])
@pytest.mark.parametrize("a", [2, 30])
def test_all_rows_right_is_no_fault_of_those_that_are_nearly_sure(num_rows, a):
    random = np.random.default_rng(0)
    faults = 0
    for _ in range(8):
        confidence = 0.5 + 0.5 * random.beta(a, 1, size=num_rows)
        simulated, _ = calibrated_hits(confidence, np.zeros(num_rows, int))
        for _ in range(100):  # data sets of the same confidences
            hits = (random.uniform(size=num_rows) < confidence).sum()
            faults += hits_p_value(simulated, hits) <= 0.1
    # 800 verdicts at 0.1, and the error of 8 tails that are each known to 0.005.
    assert faults <= binom.ppf(0.999, 800, 0.1)
    # Far fewer right rows than the mean confidence of 0.83 or more are found.
    assert hits_p_value(simulated, int(0.5 * num_rows)) < 0.05


def test_the_drawn_errors_are_those_that_calibrated_rows_have():
    held, random = 0, np.random.default_rng(1)
    confidence = random.uniform(0.5, 1, size=300)
    proba = np.stack([confidence, 1 - confidence], 1)
    _, drawn = calibrated_hits(confidence, np.minimum((confidence * 10).astype(int), 9))
    low, high = np.quantile(drawn, [0.05, 0.95])
    for _ in range(300):
        y = (random.uniform(size=300) > confidence).astype(int)
        held += low <= expected_calibration_error(proba, y, num_bins=10) <= high
    assert binom.ppf(0.001, 300, 0.9) <= held <= binom.ppf(0.999, 300, 0.9)
    ax = plot_reliability(tree(proba=proba, y=y))
    chance = f"(by chance, if calibrated: {low:.3f} to {high:.3f})"
    assert ax.get_title("left").splitlines()[2] == chance and inside(ax)


def test_coverage_is_that_counted_and_its_band_simultaneous():
    data = real(width=0.6)
    ax = plot_coverage(data)
    y = data["predictions"]["y"].values
    curve = next(line for line in ax.lines if len(line.get_xdata()) > 2)
    x, height = curve.get_data()
    for place in (10, 50, 90):
        counted = (np.abs(y) <= 0.6 * norm.ppf(0.5 + place / 200)).mean()
        assert x[place] == pytest.approx(place / 100) and height[place] == pytest.approx(counted)
    title = ax.get_title("left")
    assert title.startswith(f"Intervals are too narrow: {height[90]:.0%} of 1000 targets\n")
    assert "too wide" in plot_coverage(real(width=1.5)).get_title("left")
    assert inside(ax)


def test_right_predictions_pass_as_often_as_said():
    ax = mpl.pyplot.figure().add_subplot()
    faults = sum(
        not plot_coverage(real(100, seed=seed), ax, ci_prob=0.8)
        .get_title("left")
        .startswith("Intervals are calibrated")
        for seed in range(40)
    )
    # A fifth of right ones: the bands are steps, and keep to at most that.
    assert binom.ppf(0.001, 40, 0.12) <= faults <= binom.ppf(0.999, 40, 0.2)


def test_arviz_plots_the_ecdf_of_pit():
    data = real(shift=0.4)
    shown = az.plot_ecdf_pit(data, group="predictions", var_names="pit", sample_dims="row").viz
    x, height = shown["ecdf_lines"]["pit"].item().get_data()
    pit = data["predictions"]["pit"].values
    middle = np.abs(x - 0.5).argmin()
    assert height[middle] == pytest.approx((pit <= x[middle]).mean() - x[middle], abs=0.01)


@pytest.mark.parametrize("num_rows", [1, 3])
def test_few_rows_are_drawn_and_not_judged(num_rows):
    proba, y = classes(num_rows)
    for ax in (
        plot_reliability(tree(proba=proba, y=1 - y)),
        plot_coverage(real(num_rows, width=0.01)),
    ):
        assert ax.get_title("left").startswith(f"Too few rows to judge: {num_rows}".split(":")[0])
        assert inside(ax)


def test_rows_are_judged_from_eight_and_ten():
    for num_rows, said in ((7, "Too few"), (8, "Intervals are too narrow")):
        assert plot_coverage(tree(pit=np.full(num_rows, 1e-3))).get_title("left").startswith(said)
    for num_rows, said in ((9, "Too few rows to judge: 9\n"), (10, "Overconfident by 90.0%\n")):
        proba, y = np.tile([0.9, 0.1], (num_rows, 1)), np.ones(num_rows)
        assert plot_reliability(tree(proba=proba, y=y)).get_title("left").startswith(said)


def test_rows_without_a_transform_are_counted():
    pit = np.array([0.1, np.nan, 0.5, np.nan])
    with pytest.raises(ValueError, match=r"2 of 4 rows .* have no 'pit' \(NaN\)"):
        plot_coverage(tree(pit=pit))


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"group 'predictions', found.*Pass rows with known"):
        plot_coverage(xr.DataTree())
    with pytest.raises(ValueError, match=r"variable 'y' .* with \['proba'\]. Pass rows with known"):
        plot_reliability(tree(proba=classes()[0]))
    with pytest.raises(ValueError, match=r"no variable 'pit'.*'proba' is of classes"):
        plot_coverage(tree(proba=classes()[0]))
