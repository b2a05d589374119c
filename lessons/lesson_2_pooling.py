# %% [markdown]
# # 2. Alone, pooled, hierarchical
#
# Radon is a radioactive gas that seeps out of the ground, and the second most common cause of lung cancer, after
# smoking. It was measured in 919 houses in the 85 counties of Minnesota. To be quick, we take the counties from A to L: of one there
# are 105 houses, of others two. What should a county with two houses believe?
#
# **The idea of this lesson:** the less a task knows about itself, the more it should borrow, and a
# hierarchical model does so by itself, county by county. You need: [lesson 1](lesson_1_why_borrow.md), and linear regression.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from pyro_vmtl import VMTLRegressor
from pyro_vmtl.analysis import plot_shrinkage
from pyro_vmtl.datasets import radon

houses = radon().query("county < 'M'")
X, y, county = houses[["floor"]], houses["log_radon"], houses["county"]
rows = county.value_counts()
print(houses.head(3).to_string(), "\n")
print(
    f"{len(rows)} counties; houses in each: {rows.min()} to {rows.max()}, median {rows.median():.0f}"
)

# %% [markdown]
# Some were measured in the basement (`floor` 0), nearer to the ground, others on the first floor (1). So in each
# county we fit a line: log radon against floor. Four ways to do it, one word each:
#
# | `method=` | the line of a county | |
# |---|---|---|
# | `"alone"` | is learned from its own houses | no pooling |
# | `"pooled"` | is that of all houses | complete pooling |
# | `"hierarchical"` | is near a common line; how near is learned | partial pooling |
# | `"shared"` | is near those of *some* other counties; which ones is learned | this package |

# %%
fits = {
    method: VMTLRegressor(method, random_state=0).fit(X, y, tasks=county)
    for method in ("alone", "pooled", "hierarchical", "shared")
}

# %% alt="Four panels with the fitted lines of all counties: alone they spread widely, pooled they are one line, hierarchical they are a narrow bundle, shared they are nearly parallel at various levels; the county Lac Qui Parle, with two houses, is highlighted and moves most."
counties = sorted(rows.index, key=lambda name: -rows[name])
NAMED = {"Hennepin": ("#0072B2", "--", "o"), "Lac Qui Parle": ("#D55E00", "-", "D")}
ends = pd.DataFrame({"floor": [0.0, 1.0] * len(counties)})
labels = np.repeat(counties, 2)
fig, axes = plt.subplots(1, 4, figsize=(8, 3), sharey=True, layout="constrained")
for ax, (method, fit) in zip(axes, fits.items(), strict=True):
    lines = dict(zip(counties, fit.predict(ends, tasks=labels).reshape(-1, 2), strict=True))
    ax.plot([0, 1], np.transpose([*lines.values()]), color="0.75", linewidth=0.8)
    for shift, (name, (color, line, marker)) in zip((0.04, -0.04), NAMED.items(), strict=True):
        own = county == name
        ax.plot(
            [0, 1],
            lines[name],
            line,
            color=color,
            linewidth=2.5,
            label=f"{name}, {rows[name]} houses",
        )
        ax.plot(X[own].floor + shift, y[own], marker, color=color, markersize=3, alpha=0.7)
    ax.set_title(method, loc="left", fontsize=12)
    ax.set_xticks([0, 1], ["basement", "first floor"], fontsize=9)
    ax.set(xlim=(-0.2, 1.2), ylim=(-1.2, 4))
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("log radon")
axes[3].legend(frameon=False, fontsize=8, loc="upper left", borderaxespad=0)

# %% [markdown]
# Blue is Hennepin (around Minneapolis), with many houses: its line is nearly the same in all panels but
# the second. Orange is Lac Qui Parle with two, both high. Alone, its line stays near them (a weak prior towards the mean
# of all houses holds it back a little); pooled, they count for nothing. Hierarchical, it keeps a fifth of the difference. Shared, it
# leans on counties that are high, too, and keeps most of it. Who is right? Houses that no fit has seen can tell.

# %%
warnings.simplefilter("ignore")  # it would warn of a county with no house left
unseen = np.random.default_rng(0).random(len(y)) < 0.25
for method in fits:
    fit = VMTLRegressor(method, random_state=0).fit(X[~unseen], y[~unseen], tasks=county[~unseen])
    density = fit.log_density(X[unseen], y[unseen], tasks=county[unseen])
    print(f"{method:13s} mean log density of an unseen house {density.mean():.3f}")

# %% [markdown]
# Higher is better. Now look at the levels, county by county:

# %% alt="Estimated log radon in basements against the number of houses of the county: alone, counties with few houses scatter widely; hierarchical estimates of these are drawn together, those of large counties stay."
basement = pd.DataFrame({"floor": np.zeros(len(counties))})
level = {method: fit.predict(basement, tasks=counties) for method, fit in fits.items()}
size = rows[counties].to_numpy()
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.6), sharey=True, layout="constrained")
for ax, method in zip(axes, ("alone", "hierarchical"), strict=True):
    ax.scatter(size, level[method], s=22, color="#0072B2" if method == "alone" else "#D55E00")
    ax.axhline(level["pooled"][0], color="0.4", linestyle="dashed", linewidth=1)
    ax.set(xscale="log", xlabel="houses of the county", title=method)
    ax.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("log radon in basements")
axes[1].text(20, level["pooled"][0] - 0.09, "pooled", color="0.35")

# %% [markdown]
# Much of the spread on the left is not radon, it is noise: all extreme estimates are of counties with fewer than 15
# houses. On the right they are drawn in, and no one told the model which.
#
# **Exercise 1.** Which county's basement estimate moves most from `alone` to `hierarchical`? (Use `level` and
# `counties`.)

# %% tags=["exercise"]
moves_most = ...

# %% tags=["wrong"]
moves_most = counties[int(np.argmax(level["alone"]))]

# %% tags=["solution"]
moves_most = counties[int(np.abs(level["alone"] - level["hierarchical"]).argmax())]

# %% tags=["check"]
assert moves_most in counties, "the name of a county"
move = pd.Series(np.abs(level["alone"] - level["hierarchical"]), counties)
assert move[moves_most] == move.max(), "compare the two estimates of each county"
print(f"{moves_most}, with {rows[moves_most]} houses, by {move.max():.2f}.")

# %% [markdown]
# **Exercise 2.** Why that one? In lesson 1 a task kept the share $\tau^2/(\tau^2 + s^2)$ of itself, where $s^2$ is the squared
# standard error of its own estimate. With $n$ houses of noise σ, that is $\sigma^2/n$. Write the share that a county
# keeps as a function of `n`, for σ = 0.77 and τ = 0.3 (about what the hierarchical fit finds here).


# %% tags=["exercise"]
def kept(n, sigma=0.77, tau=0.3):
    return ...


# %% tags=["wrong"]
def kept(n, sigma=0.77, tau=0.3):
    return tau**2 / (tau**2 + sigma**2)


# %% tags=["solution"]
def kept(n, sigma=0.77, tau=0.3):
    return tau**2 / (tau**2 + sigma**2 / n)


# %% tags=["check"]
assert abs(kept(1) - 0.132) < 1e-3 and abs(kept(105) - 0.941) < 1e-3, (
    "the squared error is sigma²/n"
)
print(
    f"With two houses it keeps {kept(2):.0%} of its own, with five {kept(5):.0%}, with 105 {kept(105):.0%}."
)
print("It moves by the rest times its distance from the others: and Lac Qui Parle was far off.")

# %% [markdown]
# ## With intervals
#
# `plot_shrinkage` lays any two fits beside each other. Each filled point is the estimate of a county with its
# 90 % interval, each hollow one where it was before (in standard deviations of log radon, from its mean).

# %% alt="Shrinkage of the intercepts of 18 counties from their estimates alone, hollow, to the hierarchical ones, filled with intervals: counties with few houses have wide intervals, and those far from the mean move far."
few = [*counties[:6], *counties[17:23], *counties[-6:]]
trees = {
    method: fits[method].to_datatree(X, y, tasks=county, num_samples=400)
    for method in ("alone", "hierarchical")
}
shown = {
    method: tree.map_over_datasets(lambda part: part.sel(task=few) if "task" in part.dims else part)
    for method, tree in trees.items()
}
ax = plot_shrinkage(
    shown["hierarchical"],
    shown["alone"],
    coords={"feature": "intercept"},
    labels=("alone", "hierarchical"),
)
ax.set_yticks(
    ax.get_yticks(),
    [f"{text.get_text()} ({rows[text.get_text()]})" for text in ax.get_yticklabels()],
)

# %% [markdown]
# ## A county without a single house
#
# Where a county has no measurement, what remains is what counties have in common, and how different they
# are. With most tools that takes a second model, written by hand. Here it is one line. Look at the widths. (Each county has
# a noise of its own here. Both houses of Lac Qui Parle are far from its line, so that its noise seems large.)

# %%
for name in ("Hennepin", "Lac Qui Parle", "a new county"):
    mean, std = fits["hierarchical"].predict(basement[:1], tasks=[name], return_std=True)
    print(f"{name:14s} log radon of a new basement: {mean[0]:.2f} ± {std[0]:.2f}")

# %% [markdown]
# **Exercise 3.** The width of the new county has two parts: the noise of its houses, and that its line is unknown. What to
# expect of the first is known from the other counties: `noise`, the root mean square of theirs. Variances add up. So how
# different are counties? Compute the standard deviation of their levels.

# %% tags=["exercise"]
scales = trees["hierarchical"]["posterior"]["noise_scale"] * fits["hierarchical"].target_scale_
noise = float((scales**2).mean()) ** 0.5
_, (width,) = fits["hierarchical"].predict(basement[:1], tasks=["a new county"], return_std=True)
between = ...

# %% tags=["wrong"]
scales = trees["hierarchical"]["posterior"]["noise_scale"] * fits["hierarchical"].target_scale_
noise = float((scales**2).mean()) ** 0.5
_, (width,) = fits["hierarchical"].predict(basement[:1], tasks=["a new county"], return_std=True)
between = width - noise

# %% tags=["solution"]
scales = trees["hierarchical"]["posterior"]["noise_scale"] * fits["hierarchical"].target_scale_
noise = float((scales**2).mean()) ** 0.5
_, (width,) = fits["hierarchical"].predict(basement[:1], tasks=["a new county"], return_std=True)
between = (width**2 - noise**2) ** 0.5

# %% tags=["check"]
assert 0.25 < between < 0.6, "width² = noise² + between²"
print(f"Houses differ by {noise:.2f} within a county, counties by {between:.2f}.")

# %% [markdown]
# ## What to report
#
# - The two estimates side by side, alone and hierarchical, with the number of rows of each task. Readers ask first
#   *why does the small county move?*, and the answer is in exercise 2: its own measurements say little, so that most of its
#   estimate is that of the others.
# - Intervals of tasks, and of a new task: the last is what somebody elsewhere needs.
# - Never a map or a ranking of raw means: it shows where samples are small.
#
# To `"hierarchical"` counties are *exchangeable*: before their houses are seen, none is nearer to one than to another. `"shared"` finds
# out which are near each other, and that pays here. [Lesson 5](lesson_5_who_borrows.md) is about how it does so.
