# %% [markdown]
# # 8. Your own variant
#
# Eighteen people slept three hours a night, and each day their reaction was timed. They slow down, each at a pace of their own. Some
# measurements are odd: a phone rang, a finger slipped. One such second can bend the line of a person.
#
# **The idea of this lesson:** write the model you need, and make it multi-task by one line, `share`. Then let checks tell you whether you did it
# right. You need: [lesson 3](lesson_3_plates.md).

# %%
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from pyro_vmtl import MeanFieldELBO, Programs, TaskData, share
from pyro_vmtl.datasets import sleepstudy
from pyro_vmtl.guides import FullRankNormal
from pyro_vmtl.testing import check_variant

people = sleepstudy().query(
    "days >= 2 and subject != 335"
)  # two days of training; keep one person for later
days = ((people["days"] - 5.5) / 2.5).to_numpy("float32")[:, None]
time = ((people["reaction"] - 300) / 50).to_numpy("float32")
data = TaskData.regression(days, time, people["subject"].tolist()).with_intercept()
print(data)

# %% [markdown]
# ## A model, a guide, one line


# %%
def normal_model(data):
    """A line for every person, normal noise."""
    scale = pyro.sample("scale", dist.LogNormal(torch.tensor(-1.0), 1.0))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        mean = (data.x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(mean, scale), obs=data.y)


def programs_of(model):
    """Return a function of the rows that returns model and guide, not yet fitted."""

    def programs(data):
        guide = FullRankNormal.for_model(model, data)
        return share(model, guide, sites=["w"])  # <- the line

    return programs


SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8), "num_steps": 150}
normal = Programs(programs_of(normal_model), SETTINGS).fit(data, seed=0)

# %% [markdown]
# ## Noise with heavy tails
#
# A Student-t distribution with few degrees of freedom finds an odd value merely odd, where the normal finds it impossible and moves the line.
#
# **Exercise 1.** Write `robust_model`: the same with `dist.StudentT(3.0, mean, scale)`. The check runs the library's checks of programs of one's
# own: sites, shapes, padding, batches, gradients.


# %% tags=["exercise"]
def robust_model(data): ...


# %% tags=["wrong"]
def robust_model(data):
    scale = pyro.sample("scale", dist.LogNormal(torch.tensor(-1.0), 1.0))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        mean = (data.x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1):  # padding counts
            pyro.sample("y", dist.StudentT(3.0, mean, scale), obs=data.y)


# %% tags=["solution"]
def robust_model(data):
    scale = pyro.sample("scale", dist.LogNormal(torch.tensor(-1.0), 1.0))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        mean = (data.x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.StudentT(3.0, mean, scale), obs=data.y)


# %% tags=["check"]
few = TaskData.regression(days[:19], time[:19], people["subject"].tolist()[:19]).with_intercept()
slow = ["check_reload", "check_export", "check_side_by_side", "check_gradients"]
found = check_variant(*programs_of(robust_model)(few), few, skip=slow)
kind = poutine.trace(robust_model).get_trace(few).nodes["y"]["fn"]
assert "StudentT" in repr(kind) or "StudentT" in repr(getattr(kind, "base_dist", "")), (
    "the noise is to be Student-t"
)
print(f"{sum(result == 'passed' for result in found.values())} checks passed.")

# %% [markdown]
# (The model below is the one of the solution, so that you can go on in any case.)


# %%
def with_noise(noise):
    """Return the model with a distribution of the noise."""

    def model(data):
        scale = pyro.sample("scale", dist.LogNormal(torch.tensor(-1.0), 1.0))
        with pyro.plate("task", data.num_tasks, dim=-2):
            w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
            mean = (data.x @ w.mT).squeeze(-1)
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
                pyro.sample("y", noise(mean, scale), obs=data.y)

    return model


student = with_noise(lambda mean, scale: dist.StudentT(3.0, mean, scale))
robust = Programs(programs_of(student), SETTINGS).fit(data, seed=0)

# %% [markdown]
# ## What one slip does
#
# Take the first person, and let the phone ring on the last day: one more second. How far does each model's line move?

# %% alt="Reaction times of one person with one planted outlier: the normal model's line turns upwards towards it, the Student-t line hardly moves."
odd = time.copy()
odd[7] += 1000 / 50
slipped = TaskData.regression(days, odd, people["subject"].tolist()).with_intercept()
grid = torch.linspace(2, 9, 30)
first = people["subject"].iloc[0]
new = data.new_rows(((grid - 5.5) / 2.5)[:, None], [first] * 30)
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.5), sharey=True, layout="constrained")
lines = {}
for ax, (name, model, before) in zip(
    axes,
    (("normal noise", normal_model, normal), ("Student-t noise", student, robust)),
    strict=True,
):
    after = Programs(programs_of(model), SETTINGS).fit(slipped, seed=0)
    for fitted, style in ((before, "dashed"), (after, "solid")):
        lines[name, style] = 300 + 50 * new.unpad(fitted.predictive(new).mean)
        ax.plot(grid, lines[name, style], color="#0072B2", linestyle=style)
    ax.plot(people["days"][:8], people["reaction"][:8], "o", color="0.3")
    ax.annotate("one second more", (9, 760), (5, 690), arrowprops={"arrowstyle": "->"}, fontsize=9)
    ax.set(title=name, xlabel="day", ylim=(200, 780))
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("reaction (ms)")
axes[1].legend(["before", "after the slip"], frameon=False, loc="upper left")
moved = {
    name: float((lines[name, "solid"] - lines[name, "dashed"]).abs().max())
    for name in ("normal noise", "Student-t noise")
}
print({name: f"{value:.0f} ms" for name, value in moved.items()})

# %% [markdown]
# **Exercise 2.** Which *rows* of the real data does the robust model find oddest? Compute standardized residuals of the normal fit,
# `(y - mean) / std` of its predictions of the rows of the fit, and put the position of the largest in absolute value into `oddest`.

# %% tags=["exercise"]
rows = data.new_rows(torch.from_numpy(days), people["subject"].tolist())
predicted = normal.predictive(rows)
oddest = ...

# %% tags=["wrong"]
oddest = int(np.argmax(time))

# %% tags=["solution"]
rows = data.new_rows(torch.from_numpy(days), people["subject"].tolist())
predicted = normal.predictive(rows)
residual = (torch.from_numpy(time) - rows.unpad(predicted.mean)) / rows.unpad(
    predicted.variance
).sqrt()
oddest = int(residual.abs().argmax())

# %% tags=["check"]
row = people.iloc[oddest]
assert (row.subject, row.days) != (
    people.iloc[int(np.argmax(time))].subject,
    people.iloc[int(np.argmax(time))].days,
), "the slowest time is not the oddest: it may be where it was expected"
assert int(row.subject) in (308, 332, 371), "subtract the prediction of that person and day first"
print(f"Person {row.subject:.0f} on day {row.days:.0f}: {row.reaction:.0f} ms.")

# %% [markdown]
# ## A new person
#
# Person 335 was left out. Without any measurement, the prediction is that of someone like the others. With two days, it is half his own. Neither
# takes a new fit.

# %% alt="Prediction of a new person: without measurements a wide band that rises; after two days a narrower band, lower than before; the true later points, which fall, lie below its middle."
from pyro_vmtl import add_task

person = sleepstudy().query("days >= 2 and subject == 335")
own_days = ((person["days"] - 5.5) / 2.5).to_numpy("float32")[:, None]
own_time = ((person["reaction"] - 300) / 50).to_numpy("float32")
unseen = TaskData.regression(
    ((grid - 5.5) / 2.5)[:, None], torch.zeros(30), [335] * 30
).with_intercept()
two = TaskData.regression(own_days[:2], own_time[:2], [335] * 2).with_intercept()
grown = add_task(robust, two)
everyone = TaskData.regression(
    np.concatenate([days, own_days[:2]]),
    np.concatenate([time, own_time[:2]]),
    [*people["subject"], 335, 335],
).with_intercept()
last = everyone.new_rows(((grid - 5.5) / 2.5)[:, None], [335] * 30)
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.4), sharey=True, layout="constrained")
for ax, title, mixture, pick in (
    (axes[0], "no measurement", robust.new_task_predictive(unseen), lambda v: v[0]),
    (axes[1], "after two days", grown.predictive(last), last.unpad),
):
    mean, sd = 300 + 50 * pick(mixture.mean), 50 * pick(mixture.variance).sqrt()
    ax.plot(grid, mean, color="#0072B2")
    ax.fill_between(grid, mean - 1.64 * sd, mean + 1.64 * sd, color="#0072B2", alpha=0.2)
    known = 0 if title == "no measurement" else 2
    ax.plot(person["days"][:known], person["reaction"][:known], "o", color="#D55E00")
    ax.plot(
        person["days"][known:], person["reaction"][known:], "o", markerfacecolor="none", color="0.4"
    )
    ax.set(title=title, xlabel="day")
    ax.spines[["top", "right"]].set_visible(False)
    print(f"{title}: width on day 9 {2 * 1.64 * float(sd[-1]):.0f} ms")
axes[0].set_ylabel("reaction (ms)")

# %% [markdown]
# He is the one who got faster, which none of the others did. After two days the model expects of him what it saw in everyone else, and is
# wrong by the end: a prior made of other people is a good guess, and no more. His own rows have to say so.
#
# **Exercise 3.** `learned` is the fit after *all eight* days of person 335, by `add_task`. Make it.

# %% tags=["exercise"]
learned = ...

# %% tags=["wrong"]
learned = add_task(robust, two)

# %% tags=["solution"]
learned = add_task(robust, TaskData.regression(own_days, own_time, [335] * 8).with_intercept())

# %% tags=["check"]
assert learned.num_tasks == 18, "one task more"
at_nine = 300 + 50 * last.unpad(learned.predictive(last).mean)[-1]
assert float(at_nine) < 275, "eight days of a person who gets faster"
print(f"On day 9: {float(at_nine):.0f} ms; he measured {person['reaction'].iloc[-1]:.0f}.")

# %% [markdown]
# ## What to report
#
# - The likelihood you chose, and what the usual one would have said: if the two differ, say which rows make the difference.
# - That the program passes `check_variant` ([which checks there are](../variants.md#check-it)).
# - Predictions of new tasks with their widths, before and after the first rows.
#
# **And now?** [Ten variants](../variants.md) to copy, [pools](../pools.md) to write, [which method for which data](../which-method.md).
