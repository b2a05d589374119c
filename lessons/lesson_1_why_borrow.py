# %% [markdown]
# # 1. Why borrow?
#
# In 1981 eight American schools tried a course that prepares for a test. Each school estimated by how
# many points the course had helped, and how uncertain that estimate is. The estimates run from −3 to
# 28. Is school A really that good?
#
# **The idea of this lesson:** estimates of related things get better, on the whole, if each moves
# some way towards the others. How far is a number that you can compute by hand, and that the data
# tell you something about. Each such problem, here a school, is called a *task*. You need: the normal
# distribution, and what a standard error is.

# %%
import matplotlib.pyplot as plt
import numpy as np

from pyro_vmtl.datasets import eight_schools

schools = eight_schools()
print(schools.to_string(index=False))

# %% [markdown]
# ## Two bad answers
#
# *Alone*: believe each school. School A helps by 28 points, C does harm. But the standard errors are
# 9 to 18 points: eight copies of one and the same course would look about as different as these.
#
# *Pooled*: there is one course, and one effect. Its best estimate weighs each school by its precision,
# one over the squared standard error. Then nothing a school finds can set it apart.

# %%
precision = 1 / schools.se**2
pooled = (precision * schools.effect).sum() / precision.sum()
print(f"pooled: {pooled:.1f} points, standard error {precision.sum() ** -0.5:.1f}")

# %% [markdown]
# ## The answer between them
#
# Say that the true effects $\theta_j$ are themselves scattered around a common mean $\mu$, with standard
# deviation $\tau$, and that each school sees its own with an error:
#
# $$\theta_j \sim N(\mu, \tau^2), \qquad y_j \sim N(\theta_j, s_j^2).$$
#
# The first line is the *prior* of an effect, and $\tau$ is its *scale*. The best estimate of $\theta_j$ is
# then a weighted mean of what the school saw and of $\mu$. Each has the weight of its precision, $1/s_j^2$
# and $1/\tau^2$. And for a given $\tau$ the best $\mu$ is the mean of the $y_j$ with weights $1/(s_j^2 + \tau^2)$.
#
# **Exercise 1.** Which share $b$ of the estimate comes from the school itself? Write it as a function of
# `tau` and `se`, simplified so that it works for `tau = 0`, too. (What should it be there? And where `se` is tiny?)


# %% tags=["exercise"]
def own_share(tau, se):
    return ...


# %% tags=["wrong"]
def own_share(tau, se):
    return tau / (tau + se)


# %% tags=["solution"]
def own_share(tau, se):
    return tau**2 / (tau**2 + se**2)


# %% tags=["check"]
assert own_share(0.0, 10.0) == 0, "without any scatter, nothing is the school's own"
assert own_share(10.0, 10.0) == 0.5, "equal precisions, equal shares"
assert abs(own_share(5.0, 10.0) - 0.2) < 1e-9, "precisions 1/25 and 1/100: 4 to 1"
print("Correct.")

# %% [markdown]
# Here are all eight estimates for every $\tau$. At the left edge everything is pooled, and far to the
# right each school is alone. Schools with large errors (H, C, A) stay near the mean the longest: *those who
# know least about themselves keep the smallest share*.

# %% alt="Eight lines, one for each school, fan out from the pooled mean of 8 points at prior scale 0 to the schools' own estimates between -3 and 28; the least certain schools stay near the mean the longest."
grid = np.linspace(0, 40, 200)


def estimates(tau, effect, se):
    """Estimate the effects of all schools for one prior scale, with the mean that is best for it."""
    weight = 1 / (se**2 + tau**2)
    mean = (weight * effect).sum() / weight.sum()
    share = tau**2 / (tau**2 + se**2)
    return share * effect + (1 - share) * mean


lines = np.array([estimates(tau, schools.effect, schools.se) for tau in grid])
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(grid, lines, color="#0072B2", linewidth=1.6)
at, last = [], -99.0
for height in np.sort(lines[-1]):  # labels at least 1.3 points apart
    last = max(height, last + 1.3)
    at.append(last)
for height, school in zip(at, np.argsort(lines[-1]), strict=True):
    row = schools.iloc[school]
    ax.text(40.6, height, f"{row.school}  {row.effect} ± {row.se}", va="center", fontsize=9)
ax.set(
    xlabel="τ: how much schools differ (points)", ylabel="estimated effect (points)", xlim=(0, 49)
)
ax.set_title("From one course to eight courses", loc="left")
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# ## Does it help?
#
# We cannot know: nobody tells us the true effects. So let us play the world. Draw true effects with
# $\tau = 10$, let schools see them with errors, estimate with *some* $\tau$, and look at the mean squared
# error, 4,000 times.

# %% alt="Mean squared error against the assumed prior scale: the total of all schools is least near the true scale of 10; that of the school with the most extreme effect is larger, and below a scale of 8 worse than without sharing."
rng = np.random.default_rng(0)
se = schools.se.to_numpy()
truth = 8 + 10 * rng.normal(size=(4000, 8))
seen = truth + se * rng.normal(size=truth.shape)
extreme = np.abs(truth - 8).argmax(1)

taus = np.linspace(0, 40, 41)
every, farthest = [], []
for tau in taus:
    error = np.array([estimates(tau, effect, se) for effect in seen]) - truth
    every.append((error**2).mean())
    farthest.append((error[np.arange(4000), extreme] ** 2).mean())
alone = ((seen - truth) ** 2).mean()
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(taus, every, color="#0072B2", linewidth=2)
ax.plot(taus, farthest, color="#D55E00", linewidth=2, linestyle="dashed")
ax.axhline(alone, color="0.5", linewidth=1)
ax.text(16, 62, "all schools", color="#0072B2")
ax.text(4.6, 250, "the most extreme school", color="#D55E00")
ax.text(24, alone + 5, "each school alone", color="0.35")
ax.axvline(10, color="0.5", linestyle="dotted")
ax.text(10.4, 330, "the truth", color="0.35")
ax.set(xlabel="τ of the estimates", ylabel="mean squared error", xlim=(0, 40), ylim=(0, 360))
ax.set_title("Borrowing pays in total, and not for everyone", loc="left")
ax.spines[["top", "right"]].set_visible(False)
print(f"alone {alone:.0f}, pooled {every[0]:.0f}, with the true τ {min(every):.0f}")

# %% [markdown]
# In total, the error is least where $\tau$ is right, and a $\tau$ that is wrong by a factor of two still does
# better than either bad answer. But *single ones may lose*: the school that truly is farthest off is drawn
# to a mean that is not its own, and with a τ below 8 it would have done better alone.
#
# **Exercise 2.** With `tau = 10`, for which share of all (world, school) pairs is the shrunken estimate
# *worse* than the school's own? Guess first.

# %% tags=["exercise"]
shrunken = np.array([estimates(10, effect, se) for effect in seen])
share_that_lost = ...

# %% tags=["wrong"]
shrunken = np.array([estimates(10, effect, se) for effect in seen])
share_that_lost = (np.abs(shrunken - truth) < np.abs(seen - truth)).mean()

# %% tags=["solution"]
shrunken = np.array([estimates(10, effect, se) for effect in seen])
share_that_lost = (np.abs(shrunken - truth) > np.abs(seen - truth)).mean()

# %% tags=["check"]
assert 0.30 < share_that_lost < 0.45, "compare absolute errors, school by school"
print(f"{share_that_lost:.0%} lost by it, and yet the total error is less.")

# %% [markdown]
# ## What the data say about τ
#
# Given $\tau$ and $\mu$, each estimate is normal: $y_j \sim N(\mu, s_j^2 + \tau^2)$. That is a likelihood of $\tau$. If all values
# of $\tau$ are as plausible beforehand (a flat prior), and it is averaged over $\mu$, it is the posterior density of $\tau$, too.

# %% alt="The posterior density of the prior scale is largest at 0 and falls slowly: half of it lies above about 5 points."
total = schools.se.to_numpy()[:, None] ** 2 + grid**2
weight = 1 / total
mean = (weight * schools.effect.to_numpy()[:, None]).sum(0) / weight.sum(0)
log_density = -0.5 * np.log(weight.sum(0))  # averaged over the unknown mean
log_density += -0.5 * (
    np.log(total) + (schools.effect.to_numpy()[:, None] - mean) ** 2 / total
).sum(0)
density = np.exp(log_density - log_density.max())
density /= density.sum() * (grid[1] - grid[0])
median = grid[np.searchsorted(density.cumsum() / density.sum(), 0.5)]
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.fill_between(grid, density, color="#0072B2", alpha=0.25)
ax.plot(grid, density, color="#0072B2")
ax.axvline(median, color="0.3", linestyle="dashed")
ax.text(median + 0.4, density.max() * 0.9, f"median {median:.0f}")
ax.set(xlabel="τ (points)", ylabel="posterior density", xlim=(0, 40), ylim=(0, None))
ax.set_title("Eight schools hardly know how different they are", loc="left")
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# The single best value is 0, "all schools are equal": and it is a bad summary, as half of the posterior
# lies above 5. So do not plug a best $\tau$ in. *Average over what you do not know.* That is what Bayesian
# multi-task learning is: the distance between tasks is learned, with its uncertainty.
#
# **Exercise 3.** Average the estimate of school A over the posterior of τ (`grid`, `density`, `lines`;
# `lines[:, 0]` is school A).

# %% tags=["exercise"]
school_a = ...

# %% tags=["wrong"]
school_a = lines[:, 0].mean()

# %% tags=["solution"]
school_a = (density * lines[:, 0]).sum() / density.sum()

# %% tags=["check"]
assert 10.5 < school_a < 13, "weigh each line's value by the density of its tau"
print(f"School A: {school_a:.1f} points, not 28, and not {pooled:.1f}.")

# %% [markdown]
# ## What to report
#
# - The estimates with their intervals, *and* those of each school alone beside them: a reader wants to
#   see what borrowing did.
# - How uncertain τ is. "We assumed τ = 5" and "τ is 0 to 15" lead to different schools.
# - No ranking by point estimates: the eight intervals overlap almost entirely.
#
# **Where it goes from here.** Here everyone borrows from one common mean. But maybe A and H are alike,
# and C is a stranger. Then the prior of a task should be made of *some* others: a weight for each other
# task, which is called its *source weight*, learned from data. [Lesson 5](lesson_5_who_borrows.md) does
# that. First, [real data](lesson_2_pooling.md).
