# %% [markdown]
# # 7. Does 90 % mean 90 %?
#
# A model says "between 20 and 45, with 90 %". If it says so a thousand times, it should be right about nine hundred times. That can be
# counted.
#
# **The idea of this lesson:** calibrated *predictions* do not show that the *posterior* is right. They can be good while the intervals of
# coefficients are far too narrow. You need: [lesson 4](lesson_4_vi.md), and the binomial distribution.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import MeanFieldELBO, TaskData, VMTLRegressor, fit
from pyro_vmtl.analysis import rank_uniformity, simulate_ranks
from pyro_vmtl.datasets import exam_scores
from pyro_vmtl.guides import FullRankNormal

exams = exam_scores().sample(1500, random_state=0)
train, test = exams[:700], exams[700:]
features = ["reading", "girl"]
reg = VMTLRegressor("mixed-model", random_state=0).fit(
    train[features], train["score"], tasks=train["school"]
)
known = test[test.school.isin(train.school)]
mean, std, quantiles = reg.predict(
    known[features], tasks=known["school"], return_std=True, quantiles=[0.05, 0.95]
)
inside = (known["score"] > quantiles[:, 0]) & (known["score"] < quantiles[:, 1])
print(
    f"{len(train)} students of {train.school.nunique()} London schools; {len(known)} others to test"
)
print(f"90 % intervals hold {inside.mean():.3f}")

# %% [markdown]
# Is 0.9-something near enough? Even perfect intervals hold not exactly 90 % of a sample.
#
# **Exercise 1.** If each of `n` intervals holds with probability `p`, independently, between which two shares will the result lie with (about)
# 95 % probability? Use the normal approximation of the binomial.


# %% tags=["exercise"]
def band(p, n):
    return ..., ...


# %% tags=["wrong"]
def band(p, n):
    return p - 1.96 * p * (1 - p) / n, p + 1.96 * p * (1 - p) / n


# %% tags=["solution"]
def band(p, n):
    error = (p * (1 - p) / n) ** 0.5
    return p - 1.96 * error, p + 1.96 * error


# %% tags=["check"]
low, high = band(0.9, 100)
assert abs(low - 0.841) < 2e-3 and abs(high - 0.959) < 2e-3, (
    "a standard deviation of sqrt(p (1 - p) / n)"
)
low, high = band(0.9, len(known))
print(f"{low:.3f} to {high:.3f}; observed {inside.mean():.3f}")

# %% [markdown]
# ## All levels at once
#
# A figure for every level, not for 90 % only: the *probability integral transform* (PIT) of a test score is the probability that the
# prediction gave to lower scores. If predictions are calibrated, PITs are uniform.

# %% alt="Left: the share of test scores inside central intervals against their nominal level lies on the diagonal within the band. Right: the histogram of PIT values is flat within its band."
from scipy.stats import binom, norm

pit = norm.cdf((known["score"] - mean) / std)
levels = np.linspace(0.05, 0.95, 19)
held = np.array([(np.abs(2 * pit - 1) < level).mean() for level in levels])
fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), layout="constrained")
low, high = binom.ppf([[0.025], [0.975]], len(pit), levels) / len(pit)
left.fill_between(levels, low, high, color="0.85", label="95 % of calibrated ones")
left.plot(levels, held, "o", color="#0072B2", markersize=4)
left.set(xlabel="level of the interval", ylabel="share of scores inside", aspect="equal")
left.legend(frameon=False, loc="upper left")
counts, edges = np.histogram(pit, bins=10, range=(0, 1))
right.bar(edges[:-1], counts, width=0.1, align="edge", color="#0072B2", edgecolor="white")
low, high = binom.ppf([0.025, 0.975], len(pit), 0.1)
right.axhspan(low, high, color="0.6", alpha=0.35)
right.set(xlabel="PIT", ylabel="test scores")
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# A U shape would say: too sure (many scores in the tails). A hump: not sure enough. A slope: biased. Here is nothing of the kind.
#
# ## And the coefficients?
#
# Nobody knows the true coefficients of London. But we can *simulate*: draw coefficients from the prior, then scores, fit, and see where the true
# coefficient lies among the draws of the posterior. If posteriors are right, its *rank* is uniform. That is **simulation-based
# calibration** (SBC). Two hundred tasks of 12 students at once, with two features that go together (correlation 0.9), and two guides.

# %%
random = torch.Generator().manual_seed(0)
first, other = torch.randn(2, 2400, generator=random)
x = torch.stack([first, 0.9 * first + (1 - 0.9**2) ** 0.5 * other], -1)
data = TaskData.regression(x, torch.zeros(2400), np.repeat(np.arange(200), 12))


def model(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        centre = (data.x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(centre, 1.0), obs=data.y)


def fitted(make_guide):
    """Return a function that fits a guide to simulated scores."""

    def fit_guide(model, data):
        guide = make_guide(model, data)
        settings = {"elbo": MeanFieldELBO(num_points=8), "num_steps": 400, "learning_rate": 0.05}
        fit(model, guide, data, **settings)
        return guide

    return fit_guide


ranks = {
    "mean field": simulate_ranks(
        model, fitted(lambda m, d: AutoNormal(m)), data, num_simulations=1, num_samples=99
    ),
    "with covariances": simulate_ranks(
        model,
        fitted(lambda m, d: FullRankNormal.for_model(m, d)),
        data,
        num_simulations=1,
        num_samples=99,
    ),
}
for name, tree in ranks.items():
    print(name, "\n", rank_uniformity(tree).iloc[:, :3].to_string(), "\n")

# %% alt="Two rank histograms: with covariances it is flat; mean field has high bars at both ends, a U: the true coefficient is often outside of the draws."
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3), sharey=True, layout="constrained")
for ax, (name, tree) in zip(axes, ranks.items(), strict=True):
    u = tree["prior_sbc"]["w"].values.ravel()
    counts, edges = np.histogram(u, bins=10, range=(0, 1))
    ax.bar(
        edges[:-1],
        counts,
        width=0.1,
        align="edge",
        color="#D55E00" if name == "mean field" else "#0072B2",
        edgecolor="white",
    )
    ax.axhspan(*binom.ppf([0.025, 0.975], len(u), 0.1), color="0.6", alpha=0.35)
    ax.set(xlabel="rank of the true coefficient", title=name)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("coefficients")

# %% [markdown]
# **Exercise 2.** Which share of true coefficients does the mean-field 90 % interval hold? A rank between 0.05 and 0.95 is inside.

# %% tags=["exercise"]
u = ranks["mean field"]["prior_sbc"]["w"].values.ravel()
coverage = ...

# %% tags=["wrong"]
u = ranks["with covariances"]["prior_sbc"]["w"].values.ravel()
coverage = ((u > 0.05) & (u < 0.95)).mean()

# %% tags=["solution"]
u = ranks["mean field"]["prior_sbc"]["w"].values.ravel()
coverage = ((u > 0.05) & (u < 0.95)).mean()

# %% tags=["check"]
assert coverage < 0.8, "the ranks of the mean-field guide"
inner = ranks["mean field"]["prior_sbc"]["w"].values
assert abs(coverage - ((inner > 0.05) & (inner < 0.95)).mean()) < 1e-9
print(f"{coverage:.2f} instead of 0.90")

# %% [markdown]
# ## Both at once
#
# Now the point: *the same* mean-field fit predicts well. What it predicts is $x^\top w$, and of that it is sure by the wrong amount in both
# directions: too sure along one, not sure enough along the other. New rows lie along the data. And the noise of a row is much larger than either.

# %%
with torch.no_grad():
    torch.manual_seed(0)
    truth = torch.randn(200, 1, 2)
    centre = (data.x @ truth.mT).squeeze(-1)
    old, new = centre + torch.randn(2, 200, 12)
simulated = TaskData.regression(x, old.reshape(-1), np.repeat(np.arange(200), 12))
guide = fitted(lambda m, d: AutoNormal(m))(model, simulated)
loc, scale = guide.locs.w.detach(), guide.scales.w.detach()
centre_mean = (data.x @ loc.mT).squeeze(-1)
sd = ((data.x**2 @ (scale**2).mT).squeeze(-1) + 1).sqrt()
predicted = float(((new - centre_mean).abs() < 1.645 * sd).float().mean())
covered = float(((truth - loc).abs() < 1.645 * scale).float().mean())
print(f"90 % intervals hold: new scores {predicted:.3f}, coefficients {covered:.3f}")

# %% [markdown]
# **Exercise 3.** A colleague shows you a calibrated reliability diagram, and concludes that the intervals of her coefficients are right. Which
# *one* check would convince you: `"more test rows"`, `"sbc"`, or `"a lower loss"`?

# %% tags=["exercise"]
answer = ...

# %% tags=["wrong"]
answer = "more test rows"

# %% tags=["solution"]
answer = "sbc"

# %% tags=["check"]
assert answer == "sbc", "which of them looks at coefficients whose truth is known?"
print(
    "Yes: test rows only see predictions, and the loss of a wrong family can be as low as it gets."
)

# %% [markdown]
# ## What to report
#
# - Coverage with its band and the number of rows; that rows of a task are not quite independent makes the band too narrow.
# - For statements about coefficients: SBC of the model on data of your size, or Pareto's k and intervals by linear response.
# - Separately. "The model is calibrated" is half a sentence.
