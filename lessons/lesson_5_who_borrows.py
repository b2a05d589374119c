# %% [markdown]
# # 5. Who borrows from whom?
#
# Six people write digits on six scanners. Three scanners are mounted nearly upright, turned by 0, 10 and 20 degrees; three
# lie on their side, at 90, 100 and 110. Each has 50 labelled images of 64 pixels. One model of all six would mix up a lying 7 with
# something else; six models have 50 images each.
#
# **The idea of this lesson:** the prior of a task can be made of the *posteriors of some other tasks*. Which ones is
# learned: each task has a *source weight* for every other. You need: [lesson 2](lesson_2_pooling.md).

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

from pyro_vmtl import VMTLClassifier
from pyro_vmtl.datasets import rotated_digits
from pyro_vmtl.methods.presets import presets

digits = rotated_digits(percent=3, seed=0)
X, y, angle = digits.X_train, digits.y_train, np.array(digits.tasks_train)
print(X.shape, "training images;", len(digits.y_test), "test images, of none of which a rotated copy is trained on")

# %% alt="One image of a seven in six tasks: three nearly upright, three lying on the side."
test_angle = np.array(digits.tasks_test)
seven = digits.origin_test[digits.y_test == 7][0]
fig, axes = plt.subplots(1, 6, figsize=(8, 1.7), layout="constrained")
for ax, degrees in zip(axes, sorted(set(angle)), strict=True):
    row = (test_angle == degrees) & (digits.origin_test == seven)
    ax.imshow(digits.X_test[row].reshape(8, 8), cmap="gray_r")
    ax.set_title(f"task {degrees}", fontsize=10)
    ax.axis("off")

# %% [markdown]
# ## The prior of a task
#
# Task $t$ has coefficients $w_t$ with the posterior $q_t$. Its prior is a *pool* of what the others found:
#
# $$\log p_t(w) = a_{t0} \log q_0(w) + \sum_{i \ne t} a_{ti} \log q_i(w), \qquad \sum_i a_{ti} = 1.$$
#
# - $q_i$ are the posteriors of the other tasks, the *sources* (a little widened),
# - $q_0$ is a plain prior around 0, the *base*: a task without relatives has something to lean on,
# - $a_{ti}$ are the **source weights** of task $t$: how much of its prior is made of task $i$.
#
# Nobody says which angles belong together. The weights are learned with everything else.

# %% alt="Heat map of source weights: tasks 0, 10 and 20 borrow from one another, tasks 90, 100 and 110 from one another, hardly any weight between the groups."
clf = VMTLClassifier("shared", random_state=0).fit(X, y, tasks=angle)
clf.plot_relatedness()
print(f"accuracy {clf.score(digits.X_test, digits.y_test, tasks=digits.tasks_test):.3f}")

# %% [markdown]
# Each row is a task, and says from whom it borrows; its weights, with those of the base, add up to 1. Two blocks: the upright and the lying.
#
# **Exercise 1.** Which share of all weight on *sources* (without the base) stays within the own group? `weights` is
# (task, source), and `group` says which of the six is upright.

# %% tags=["exercise"]
mean = clf.relatedness_["mean"]
weights = mean.sel(task=list(clf.tasks_), source=list(clf.tasks_)).values
group = np.array(clf.tasks_) < 45
within = ...

# %% tags=["wrong"]
mean = clf.relatedness_["mean"]
weights = mean.sel(task=list(clf.tasks_), source=list(clf.tasks_)).values
group = np.array(clf.tasks_) < 45
within = weights[group][:, group].sum() / weights.sum()

# %% tags=["solution"]
mean = clf.relatedness_["mean"]
weights = mean.sel(task=list(clf.tasks_), source=list(clf.tasks_)).values
group = np.array(clf.tasks_) < 45
same = group[:, None] == group
within = weights[same].sum() / weights.sum()

# %% tags=["check"]
assert 0.8 < within <= 1, "sum the weights whose task and source are in the same group, both groups"
print(f"{within:.0%} within the groups; by chance it would be 40 %.")

# %% [markdown]
# ## It can fail
#
# Before the first step, where should the weights be? If they are *even*, each task is at first drawn to the mean of all six.
# Soon all posteriors are alike there, and then nobody can be told from anybody. So the fit lets the weights start at the *nearest*
# sources, by what each task finds alone. See both.

# %% alt="Two heat maps side by side: from the nearest start, two clear blocks; from an even start all weights stay nearly equal."
preset = presets("classification")["shared"].many_features
even = replace(preset, sharing={**preset.sharing, "start": "even"})
evenly = VMTLClassifier(even, random_state=0).fit(X, y, tasks=angle)
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.9), layout="constrained")
for ax, fit, title in zip(axes, (clf, evenly), ("started at the nearest", "started evenly"), strict=True):
    shown = fit.relatedness_["mean"].sel(task=list(fit.tasks_)).values
    image = ax.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(range(7), [*map(str, fit.tasks_), "base"])
    ax.set_yticks(range(6), map(str, fit.tasks_))
    ax.set(title=title, xlabel="source", ylabel="task")
fig.colorbar(image, ax=axes, label="source weight", shrink=0.8)
print(f"accuracy, started evenly: {evenly.score(digits.X_test, digits.y_test, tasks=digits.tasks_test):.3f}")

# %% [markdown]
# An even heat map can therefore mean two things: that all tasks are alike, or that the fit did not find out. Looking at it does not
# tell which. Held-out rows do.
#
# ## Plant a stranger
#
# What would a task look like that has nothing to do with the others? Make one, and see: that is the best way to learn what a
# picture can show.
#
# **Exercise 2.** Build a seventh task `"stranger"`: the 50 images of task 0, but with their labels shuffled (by
# `rng.permutation`). Put all 350 rows into `X7`, `y7`, `tasks7`.

# %% tags=["exercise"]
rng = np.random.default_rng(0)
X7, y7, tasks7 = ..., ..., ...

# %% tags=["wrong"]
X7 = np.concatenate([X, X[angle == 0]])
y7 = np.concatenate([y, y[angle == 0]])
tasks7 = [*angle.tolist(), *["stranger"] * 50]

# %% tags=["solution"]
rng = np.random.default_rng(0)
X7 = np.concatenate([X, X[angle == 0]])
y7 = np.concatenate([y, rng.permutation(y[angle == 0])])
tasks7 = [*angle.tolist(), *["stranger"] * 50]

# %% tags=["check"]
assert X7.shape == (350, 64) and len(y7) == len(tasks7) == 350, "50 rows more"
assert (y7[300:] != y[angle == 0]).mean() > 0.7, "the stranger's labels are shuffled"
with_stranger = VMTLClassifier("shared", random_state=0).fit(X7, y7, tasks=tasks7)
lent = with_stranger.relatedness_["mean"].sel(source="stranger")
lent = float(lent.sel(task=[0, 10, 20, 90, 100, 110]).mean())
assert lent < 0.08, "hardly anyone borrows from a stranger"
print(f"The six lean on the stranger with a mean weight of {lent:.3f}; an even one would be 0.14.")

# %% [markdown]
# ## What may I conclude from the heat map?
#
# | I see | I may say | I may not say |
# |---|---|---|
# | a dark cell (t, i) | the coefficients of $i$ are a good guess of those of $t$, given what the model can express | $i$ causes something in $t$; their images look alike |
# | (t, i) dark, (i, t) light | $t$ has fewer or less telling rows, or $i$ has a nearer source | the relation is one-sided |
# | a row that is all base | no other task helps $t$ | $t$ is unique: it may just have plenty of rows, or too few to tell |
# | an even row | tasks are alike, *or* nothing was found | tasks are alike |
#
# And a weight is a part of the *prior*. A task with thousands of rows hardly listens to its prior, however dark its row.
# `clf.summary()` therefore has a column `borrowed`: the share of a task's estimate that does come from others.

# %%
print(clf.summary().round(2).to_string())

# %% [markdown]
# **Exercise 3.** You have 5,000 rows for one task and 30 for each of the others, and the first has weight 0.9 on a source. About how much
# of its estimate comes from others: nearly all (`"all"`), about half (`"half"`), or hardly anything (`"little"`)?

# %% tags=["exercise"]
answer = ...

# %% tags=["wrong"]
answer = "all"

# %% tags=["solution"]
answer = "little"

# %% tags=["check"]
assert answer == "little", "the weight is of the prior; what counts is the prior against 5,000 rows"
print("Right: its own rows outweigh any prior.")

# %% [markdown]
# ## What to report
#
# - The heat map with the number of rows of each task, and `borrowed`.
# - Whether sharing pays on held-out rows, against `"alone"` and `"pooled"`: a pretty picture is no evidence
#   ([lesson 6](lesson_6_when_sharing_hurts.md)).
# - That the picture was the same from other seeds and starts, or that it was not.
