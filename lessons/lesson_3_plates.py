# %% [markdown]
# # 3. Plates, shapes, masks
#
# Until now the models were ready-made. Now you write one. Five shops count their sales: the oldest for twelve days, the newest for
# two. A tensor is a rectangle, though, and five different numbers of rows are none.
#
# **The idea of this lesson:** rows of all tasks lie in one rectangle (T, N), filled up with padding, and three lines of a model see to
# it that padding does not matter. You need: what a probabilistic program is; [Pyro's introduction](https://pyro.ai/examples/intro_long.html) will do.

# %%
import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import TaskData, fit, share
from pyro_vmtl.testing import CHECKS, check_variant

days = {"Ada": 12, "Bo": 9, "Cy": 6, "Di": 4, "Ed": 2}
shops = [shop for shop, number in days.items() for _ in range(number)]
random = torch.Generator().manual_seed(0)
rain = torch.randn(len(shops), 1, generator=random)
sales = torch.poisson((2.0 - 0.5 * rain[:, 0]).exp(), generator=random)
data = TaskData.regression(rain, sales, shops).with_intercept()
print(data)
print("x", tuple(data.x.shape), " y", tuple(data.y.shape), " mask", tuple(data.mask.shape))

# %% [markdown]
# Letters in shapes are the same everywhere: `T` tasks, `N` rows of the longest task, `F` features. `data.mask` is True where a row is real.

# %% alt="A rectangle of five shops by twelve days: the targets of real rows are shaded by their size, padded cells are hatched; the last shop has two real rows."
fig, ax = plt.subplots(figsize=(7.2, 2.9), layout="constrained")
image = ax.imshow(data.y.masked_fill(~data.mask, torch.nan), cmap="Blues", vmin=0)
for t, n in (~data.mask).nonzero().tolist():
    ax.add_patch(plt.Rectangle((n - 0.5, t - 0.5), 1, 1, fill=False, hatch="///", edgecolor="0.7"))
ax.set_yticks(range(5), data.task_labels)
ax.set(xlabel="row (N = 12)", ylabel="task (T = 5)")
ax.set_title("data.y: sales, and padding (hatched)", loc="left")
fig.colorbar(image, label="sales", shrink=0.8)

# %% [markdown]
# ## The model
#
# Two *plates* say what is independent of what: tasks along dimension −2, rows of a task along −1. Each sample statement then has a
# shape that can be read: dimensions of the plates, and after a `|` the *event*, whose numbers belong together.


# %%
def model(data):
    """Poisson regression in every shop."""
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample(
            "w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1)
        )  # (T, 1, F)
        rate = (data.x @ w.mT).squeeze(-1).exp()  # (T, N, F) @ (T, F, 1): (T, N)
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Poisson(rate), obs=data.y)


trace = poutine.trace(model).get_trace(data)
trace.compute_log_prob()
print(trace.format_shapes())

# %% [markdown]
# Read it aloud: there is a `w` for each of 5 tasks (the 1 is where the rows would be), each an event of 2 numbers, so it has one log probability
# a task, 5 × 1. There are 5 × 12 targets, each with a log probability. *When a model misbehaves, print this first.*
#
# **Exercise 1.** How many numbers of `y`'s log probability count, after the mask?

# %% tags=["exercise"]
counted = ...

# %% tags=["wrong"]
counted = data.y.numel()

# %% tags=["solution"]
counted = int(data.mask.sum())

# %% tags=["check"]
assert counted == sum(days.values()), "one for each real row"
assert int((trace.nodes["y"]["log_prob"] != 0).sum()) == counted
print(counted, "of", data.y.numel())

# %% [markdown]
# One line makes this multi-task learning: `share` puts a pool of the other shops' posteriors in place of the prior of `w`.


# %% alt="Slopes of the five shops with intervals, alone and shared: the shop with two days has a wide interval alone and a narrow one shared."
def slopes(model, guide):
    """Fit, and return mean and standard deviation of each shop's slope."""
    torch.manual_seed(0)
    fit(model, guide, data, num_steps=600, learning_rate=0.03)
    with torch.no_grad(), pyro.plate("draws", 1000, dim=-3):
        w = poutine.trace(guide).get_trace(data).nodes["w"]["value"]
    return w[..., 0, 0].mean(0), w[..., 0, 0].std(0)


found = {"alone": slopes(model, AutoNormal(model))}
found["shared"] = slopes(*share(model, AutoNormal(model), sites=["w"]))
fig, ax = plt.subplots(figsize=(7, 2.9), layout="constrained")
for shift, color, (name, (mean, sd)) in zip(
    (-0.12, 0.12), ("#0072B2", "#D55E00"), found.items(), strict=True
):
    marker = "o" if name == "alone" else "s"
    ax.errorbar(mean, torch.arange(5) + shift, xerr=1.64 * sd, fmt=marker, color=color, label=name)
ax.axvline(-0.5, color="0.5", linestyle="dashed")
ax.text(-0.48, 3.6, "truth", color="0.35", fontsize=9)
ax.set_yticks(range(5), [f"{name} ({number} days)" for name, number in days.items()])
ax.invert_yaxis()
ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
ax.set(xlabel="slope of rain, with 90 % interval", title="What the other shops add")
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# ## Three broken models
#
# Each of these runs without any error, and is wrong. `check_variant` says what it found and which line to change; you can also see it by
# `format_shapes`. Mend them one by one.
#
# **Exercise 2.** This one lets padding count: the newest shop had ten days without a sale, it believes.


# %% tags=["exercise"]
def without_mask(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        rate = (data.x @ w.mT).squeeze(-1).exp()
        with pyro.plate("data", data.num_rows, dim=-1):
            pyro.sample("y", dist.Poisson(rate), obs=data.y)


# %% tags=["solution"]
def without_mask(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        rate = (data.x @ w.mT).squeeze(-1).exp()
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Poisson(rate), obs=data.y)


# %% tags=["check"]
def mended(program, name):
    """Run the check of that name, and see that it is still the model above."""
    skip = [check for check in CHECKS if check != name]
    check_variant(program, AutoNormal(program), data, skip=skip)
    trace = poutine.trace(poutine.condition(program, {"w": torch.zeros(5, 1, 2)})).get_trace(data)
    right = poutine.trace(poutine.condition(model, {"w": torch.zeros(5, 1, 2)})).get_trace(data)
    assert torch.allclose(trace.log_prob_sum(), right.log_prob_sum()), (
        "not the same log probability"
    )


mended(without_mask, "check_padding")
print("Padding does not count.")

# %% [markdown]
# **Exercise 3.** Here the two numbers of a shop's `w` are no event: they lie in dimension −1, where the rows belong. Mend it by `.to_event(1)`,
# and take the product as in the model above.


# %% tags=["exercise"]
def without_event(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0))
        rate = (data.x @ w.unsqueeze(-1)).squeeze(-1).exp()
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Poisson(rate), obs=data.y)


# %% tags=["solution"]
def without_event(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        rate = (data.x @ w.mT).squeeze(-1).exp()
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Poisson(rate), obs=data.y)


# %% tags=["check"]
node = poutine.trace(without_event).get_trace(data).nodes["w"]
assert node["fn"].event_shape == (2,) and node["value"].shape == (5, 1, 2), (
    "w is an event of 2 numbers"
)
print("One event of 2 numbers for each task.")

# %% [markdown]
# **Exercise 4.** And here all shops have one and the same `w`. It fits, it predicts, and nobody would notice.


# %% tags=["exercise"]
def one_for_all(data):
    w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
    with pyro.plate("task", data.num_tasks, dim=-2):
        rate = (data.x @ w).exp()
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Poisson(rate), obs=data.y)


# %% tags=["wrong"]
def one_for_all(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        rate = (data.x @ w[0, 0]).exp()
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Poisson(rate), obs=data.y)


# %% tags=["solution"]
def one_for_all(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        rate = (data.x @ w.mT).squeeze(-1).exp()
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Poisson(rate), obs=data.y)


# %% tags=["check"]
different = torch.arange(10.0).reshape(5, 1, 2) / 10
run = poutine.trace(poutine.condition(one_for_all, {"w": different})).get_trace(data)
rate = (
    run.nodes["y"]["fn"].base_dist.rate
    if hasattr(run.nodes["y"]["fn"], "base_dist")
    else run.nodes["y"]["fn"].rate
)
assert rate.shape == (5, 12) and rate[0, 0] != rate[4, 0], "each shop has a w of its own"
assert torch.allclose(rate, (data.x @ different.mT).squeeze(-1).exp()), (
    "row n of shop t has the w of t"
)
print("Five shops, five slopes.")

# %% [markdown]
# ## What to remember
#
# - Tasks along −2, rows along −1, numbers that belong together in the event.
# - Mask what is padded. `data.mask` is all you need.
# - Print `format_shapes`, and run `check_variant` in your tests: most of these errors are silent. For a start,
#   `pyro-vmtl new-variant NAME` writes a model and its test.
