# %% [markdown]
# # 5. Who borrows from whom?
#
# Six people write digits on six scanners. Three scanners are mounted nearly upright, turned by 0, 10 and 20 degrees; three
# lie on their side, at 90, 100 and 110. To be quick, we take the digits 0 to 4; each scanner has 25 labelled images of 64 pixels. One model
# of all six would mix up what stands and what lies; six models have 25 images each.
#
# **The idea of this lesson:** the prior of a task can be made of the *posteriors of some other tasks*. Which ones is
# learned: each task has a *source weight* for every other. You need: lessons [2](lesson_2_pooling.md) and [4](lesson_4_vi.md).

# %%
import matplotlib.pyplot as plt
import numpy as np

from pyro_vmtl import VMTLClassifier
from pyro_vmtl.datasets import rotated_digits

digits = rotated_digits(percent=3, seed=0)
few, few_test = digits.y_train < 5, digits.y_test < 5
X, y, angle = digits.X_train[few], digits.y_train[few], np.array(digits.tasks_train)[few]
X_test, y_test = digits.X_test[few_test], digits.y_test[few_test]
angle_test = np.array(digits.tasks_test)[few_test]
print(
    f"{len(X)} training images; {len(X_test)} test images, none a rotated copy of a training image"
)

# %% alt="One image of a three in six tasks: three nearly upright, three lying on the side."
three = digits.origin_test[digits.y_test == 3][0]
fig, axes = plt.subplots(1, 6, figsize=(8, 1.7), layout="constrained")
for ax, degrees in zip(axes, sorted(set(angle)), strict=True):
    row = (angle_test == degrees) & (digits.origin_test[few_test] == three)
    ax.imshow(X_test[row].reshape(8, 8), cmap="gray_r")
    ax.set_title(f"task {degrees}", fontsize=10)
    ax.axis("off")

# %% [markdown]
# ## The prior of a task
#
# Task $t$ has coefficients $w_t$ with the posterior $q_t$. Its prior is a *pool* of what the others found:
#
# $$\log p_t(w) = a_{t0} \log q_0(w) + \sum_{i \ne t} a_{ti} \log q_i(w) + \text{const}, \qquad \sum_i a_{ti} = 1.$$
#
# Of normals, that is a normal again, and its mean is a weighted mean of theirs.
#
# - $q_i$ are the posteriors of the other tasks, the *sources*. Even relatives differ, so each is made wider first; by how much is learned,
# - $q_0$ is a plain prior around 0, the *base*: a task without relatives has something to lean on,
# - $a_{ti}$ are the **source weights** of task $t$: how much of its prior is made of task $i$.
#
# With weights 0.6, 0 and 0.4 on two sources and the base, say, task $t$ expects its coefficients where the first source has them, drawn
# somewhat towards 0, and the second source might as well not be there. Nobody says which angles belong together. The weights are learned with everything else,
# by making the ELBO large. (Is it a circle that $i$ borrows from $t$, too? Some of what $t$ lent does come back as an echo. The base, whose weight
# never falls to 0, keeps it small.)

# %%
for method in ("alone", "pooled", "shared"):
    clf = VMTLClassifier(method, random_state=0).fit(X, y, tasks=angle)
    print(f"{method:7s}accuracy {clf.score(X_test, y_test, tasks=angle_test):.3f}")
weights = clf.history_.relatedness["w"][-1].numpy()  # of "shared": (task, source), the base last
print(weights.round(2))

# %% [markdown]
# Each row is a task, and says from whom it borrows; with the base in the last column it adds up to 1. Each task leans on one other of its group. The
# third would do as well: weights tell relatives from strangers surely, but not which relative is the nearest.
#
# **Exercise 1.** Which share of all weight on *sources* (without the base) stays within the own group? `upright` says which of the
# six tasks are in the first group.

# %% tags=["exercise"]
sources = weights[:, :6]
upright = np.array(clf.tasks_) < 45
within = ...

# %% tags=["wrong"]
sources = weights[:, :6]
upright = np.array(clf.tasks_) < 45
within = sources[upright][:, upright].sum() / sources.sum()

# %% tags=["solution"]
sources = weights[:, :6]
upright = np.array(clf.tasks_) < 45
same = upright[:, None] == upright
within = sources[same].sum() / sources.sum()

# %% tags=["check"]
assert 0.8 < within <= 1, "sum the weights whose task and source are in the same group, both groups"
print(f"{within:.0%} within the groups; by chance it would be 40 %.")

# %% [markdown]
# ## When did it find out?
#
# Source weights start at what each task finds alone: the nearest others get most. Then the fit makes up its mind.

# %% alt="Heat maps of the source weights at the start, after a few steps and at the end: each row of pale cells becomes one dark cell, inside the task's group; and a curve of the weight within the groups, which rises from 0.65 to above 0.9; chance is 0.4."
history = clf.history_
path = history.relatedness["w"].numpy()
upright = np.array(clf.tasks_) < 45
own = ((upright[:, None] == upright) * path[:, :, :6]).sum((1, 2)) / path[:, :, :6].sum((1, 2))
fig, axes = plt.subplots(
    1, 4, figsize=(8.4, 2.6), layout="constrained", width_ratios=[1, 1, 1, 1.4]
)
for ax, at in zip(axes, (0, 2, -1), strict=False):
    image = ax.imshow(path[at], cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(range(7), [*map(str, clf.tasks_), "base"], rotation=60)
    ax.set_yticks(range(6), map(str, clf.tasks_))
    ax.set_title(f"step {int(history.snapshot_step[at])}")
axes[0].set(xlabel="source", ylabel="task")
fig.colorbar(image, ax=axes[2], label="source weight", shrink=0.8)
axes[3].plot(history.snapshot_step, own, color="#0072B2")
axes[3].axhline(0.4, color="0.5", linestyle="dotted")
axes[3].text(float(history.snapshot_step[-1]), 0.42, "by chance", ha="right", color="0.35")
axes[3].set(ylim=(0, 1.03), xlabel="step", title="weight in own group")
axes[3].spines[["top", "right"]].set_visible(False)

# %% [markdown]
# In slow motion, with one coefficient a task and weights that start evenly: six made-up slopes, three near 1 and three near −1, ten rows each. As soon
# as the posteriors of two tasks overlap more than others, each is the better prior for the other, and so it gets more weight, and draws it nearer.
#
# ![Animation: posteriors of six slopes part into two groups of three, near 1 and -1, and source weights, even at first, become two blocks.](groups-appear.gif)
#
# ## It can fail
#
# Had the weights started *evenly*, each task would at first be drawn to the mean of all, and soon nobody could be told from anybody. On easy data such
# as these the fit recovers from that. On harder data it does not: of 32 made-up tasks in four groups, the weight within the
# groups was 0.28 from an even start. From the nearest it was 0.99, with an ELBO that was 385 nats higher ([measured](../method.md#what-each-part-buys)).
#
# An even heat map can therefore mean two things: that all tasks are alike, or that the fit did not find out. Looking at it does not
# tell which. The ELBO and held-out rows do.
#
# ## Plant a stranger
#
# What would a task look like that has nothing to do with the others? Make one, and see: that is the best way to learn what a
# picture can show.
#
# **Exercise 2.** Build a seventh task `"stranger"`: the 25 images of task 0, but with their labels shuffled (by
# `rng.permutation`). Put all 175 rows into `X7`, `y7`, `tasks7`.

# %% tags=["exercise"]
rng = np.random.default_rng(0)
X7, y7, tasks7 = ..., ..., ...

# %% tags=["wrong"]
X7 = np.concatenate([X, X[angle == 0]])
y7 = np.concatenate([y, y[angle == 0]])
tasks7 = [*angle.tolist(), *["stranger"] * 25]

# %% tags=["solution"]
rng = np.random.default_rng(0)
X7 = np.concatenate([X, X[angle == 0]])
y7 = np.concatenate([y, rng.permutation(y[angle == 0])])
tasks7 = [*angle.tolist(), *["stranger"] * 25]

# %% tags=["check"]
assert X7.shape == (175, 64) and len(y7) == len(tasks7) == 175, "25 rows more"
assert (y7[150:] != y[angle == 0]).mean() > 0.5, "the stranger's labels are shuffled"
with_stranger = VMTLClassifier("shared", random_state=0).fit(X7, y7, tasks=tasks7)
place = with_stranger.tasks_.index("stranger")
lent = with_stranger.history_.relatedness["w"][-1][:, place].sum() / 6
assert lent < 0.08, "hardly anyone borrows from a stranger"
print(f"The six lean on the stranger with a mean weight of {lent:.3f}; an even one would be 0.14.")

# %% [markdown]
# ## What may I conclude from the heat map?
#
# The table is about the heat map of **source weights**: row $t$ borrows, column $i$ lends.
#
# | I see | I may say | I may not say |
# |---|---|---|
# | a dark cell (t, i) | the coefficients of $i$ are a good guess of those of $t$, given what the model can express | $i$ causes something in $t$; their images look alike |
# | (t, i) dark, (i, t) light | $t$ has fewer or less informative rows, or $i$ has a nearer source | the relation is one-sided |
# | one cell of a row much darker than others | $t$ has relatives, $i$ among them | $i$ is the nearest, unless it is so from other seeds, too |
# | a row that is all base | no other task was found that helps $t$ | $t$ is unique: it may have too few rows to tell |
# | an even row | tasks are alike, *or* nothing was found | tasks are alike |
#
# And a weight is a part of the *prior*. A task with thousands of rows hardly listens to its prior, however dark its row. What comes of it is another
# number: the share of a task's *estimate* that is due to the rows of others. That is what `clf.relatedness_`, `clf.summary()` (`borrowed` in all, `share` from
# the `nearest`) and `clf.plot_relatedness()` show, and what you would report. Where a cell has a dot, its interval is so wide that it includes an even share.

# %% alt="Heat map of shares of each estimate that are due to the rows of each other task: one dark cell in each row, inside the task's group of three."
clf.plot_relatedness()
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
