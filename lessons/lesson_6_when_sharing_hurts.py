# %% [markdown]
# # 6. When sharing hurts
#
# Borrow from strangers, and you are worse off than alone. Stand alone among copies of yourself, and you waste what they know.
# Before a fit, nobody can tell you which of the two it is.
#
# **The idea of this lesson:** fit both, and let rows that were held out decide. The mixture follows the better one wherever that is.
# You need: [lesson 2](lesson_2_pooling.md), and cross-validation.
#
# ## A dial
#
# So let us build data with a dial $d$ from 0 to 1. Eight tasks, four features, twelve rows each:
#
# $$w_t = \sqrt{1 - d}\, w_\text{common} + \sqrt{d}\, w_{t,\text{own}}, \qquad y = x^\top w_t + \varepsilon.$$
#
# At 0 all tasks are copies, at 1 strangers. The coefficients are equally large everywhere, so that only the relation changes.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from pyro_vmtl import Stack, TaskData
from pyro_vmtl.methods.presets import presets

DIAL = [0.0, 0.1, 0.3, 0.6, 1.0]
NUM_TASKS, NUM_FEATURES, NUM_ROWS, NUM_TEST, NOISE = 8, 4, 12, 100, 1.0


def make(d, seed):
    """Return training rows and test rows of eight tasks at a setting of the dial."""
    random = torch.Generator().manual_seed(seed)
    common = torch.randn(1, NUM_FEATURES, generator=random)
    own = torch.randn(NUM_TASKS, NUM_FEATURES, generator=random)
    w = (1 - d) ** 0.5 * common + d**0.5 * own
    labels = np.repeat(np.arange(NUM_TASKS), NUM_ROWS + NUM_TEST)
    x = torch.randn(len(labels), NUM_FEATURES, generator=random)
    y = (x * w[labels]).sum(1) + NOISE * torch.randn(len(labels), generator=random)
    train = torch.from_numpy(np.arange(len(labels)) % (NUM_ROWS + NUM_TEST) < NUM_ROWS)
    data = TaskData.regression(x[train], y[train], labels[train.numpy()]).with_intercept()
    return data, data.new_rows(x[~train], labels[~train.numpy()], y[~train])


# %% [markdown]
# Three members, and a *stack* of them: the stack holds out a third of the rows at a time, sees how probable each member thinks
# them, and weighs the members by that. The score is the *negative log-likelihood* (NLL) of test rows, less is better: it asks for a
# prediction that is right *and* says how sure it is.

# %%
members = {name: presets("regression")[name].few_features for name in ("pooled", "shared", "alone")}
stack = Stack(members, num_folds=3)


def nll(predictive, test):
    """Return the mean negative log-likelihood of test rows."""
    return -float(predictive.log_prob(test.y)[test.mask].mean())


scores, weights = {}, {}
for d in DIAL:
    data, test = make(d, seed=1)
    fitted = stack.fit(data, seed=0)
    draws = dict(zip(fitted.members, fitted.draws(test), strict=True))
    scores[d] = {
        name: -float((drawn.log_prob(test.y).logsumexp(0) - np.log(200))[test.mask].mean())
        for name, drawn in draws.items()
    }
    scores[d]["stack"] = nll(fitted.predictive(test), test)
    weights[d] = dict(zip(fitted.members, fitted.weights.mean(0).tolist(), strict=True))
table, mean_weights = pd.DataFrame(scores).T, pd.DataFrame(weights).T
print(table.round(2).to_string(), "\n")
print(mean_weights.round(2).to_string())

# %% alt="Left: NLL of pooled rises steeply with the dial, that of alone is flat, shared lies between, and the stack stays near the lowest. Right: the stack's weight moves from pooled over shared to alone."
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
STYLE = {
    "pooled": ("#009E73", "dotted"),
    "shared": ("#D55E00", "dashed"),
    "alone": ("#0072B2", "dashdot"),
    "stack": ("0.1", "solid"),
}
for name, (color, line) in STYLE.items():
    left.plot(
        DIAL,
        table[name],
        color=color,
        linestyle=line,
        linewidth=2.2,
        label=name,
        marker="o",
        markersize=3,
    )
left.set(xlabel="dial: copies (0) to strangers (1)", ylabel="NLL of test rows (nats)")
left.set_title("The stack follows the lower envelope", loc="left", fontsize=11)
left.set_ylim(table.min().min() - 0.05, min(table.max().max(), table["alone"].max() + 0.5) + 0.05)
left.legend(frameon=False)
bottom = np.zeros(len(DIAL))
for (name, hatch), (color, _) in zip(
    {"pooled": "", "shared": "//", "alone": ".."}.items(), STYLE.values(), strict=False
):
    right.bar(
        range(len(DIAL)),
        mean_weights[name],
        bottom=bottom,
        color=color,
        hatch=hatch,
        edgecolor="white",
        label=name,
    )
    bottom += mean_weights[name].to_numpy()
right.set_xticks(range(len(DIAL)), map(str, DIAL))
right.set(xlabel="dial", ylabel="weight in the stack")
right.set_title("because its weights move", loc="left", fontsize=11)
right.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# **Exercise 1.** Where is the *crossover*: the smallest of the five settings at which `alone` has a lower NLL than `pooled`? Take it from
# `table` by a line of code.

# %% tags=["exercise"]
crossover = ...

# %% tags=["wrong"]
crossover = table.index[table["alone"] > table["pooled"]][0]

# %% tags=["solution"]
crossover = table.index[table["alone"] < table["pooled"]][0]

# %% tags=["check"]
assert crossover in DIAL, "one of the settings"
assert table.loc[crossover, "alone"] < table.loc[crossover, "pooled"], "alone is better there"
assert all(table.loc[d, "alone"] >= table.loc[d, "pooled"] for d in DIAL if d < crossover), (
    "and not before"
)
print(f"From {crossover} on, everyone for himself is better than all in one.")

# %% [markdown]
# **Exercise 2.** The *regret* of a method is its NLL minus that of the best single member at the same setting. Which of the four columns has the
# least *largest* regret? Compute `regret` (a table like `table`), and the name.

# %% tags=["exercise"]
regret = ...
safest = ...

# %% tags=["wrong"]
regret = table.sub(table["alone"], axis=0)
safest = regret.max().idxmin()

# %% tags=["solution"]
regret = table.sub(table[["pooled", "shared", "alone"]].min(axis=1), axis=0)
safest = regret.max().idxmin()

# %% tags=["check"]
assert np.allclose(regret[["pooled", "shared", "alone"]].min(axis=1), 0), (
    "the best member has no regret"
)
assert safest == regret.max().idxmin(), "the least of the largest"
assert safest in ("stack", "shared"), "not one of the two extremes"
print(regret.max().round(2).to_string(), f"\nsafest: {safest}")

# %% [markdown]
# ## Why not choose the best member, instead of weighing?
#
# With 12 rows a task, held-out rows are few, and the best member is sometimes the wrong one. A mixture cannot be
# much worse than its best member: if that has weight $\omega$, then the mixture's density is at least $\omega$ times its density, at every
# row.
#
# **Exercise 3.** So by how many nats, at most, can the NLL of the stack exceed that of a member with weight `omega`?


# %% tags=["exercise"]
def most(omega):
    return ...


# %% tags=["wrong"]
def most(omega):
    return 1 - omega


# %% tags=["solution"]
def most(omega):
    return -np.log(omega)


# %% tags=["check"]
assert most(1.0) == 0 and abs(most(0.5) - 0.693) < 1e-3, "minus the logarithm of the weight"
print(f"With weight 0.5: at most {most(0.5):.2f} nats, whatever the other half says.")

# %% [markdown]
# ## What to report
#
# - The score of each member beside that of what you use, on rows that nothing was fitted or chosen on.
# - Weights of the stack: they say in one line whether your tasks are copies, relatives or strangers.
# - Standard errors: with one data set, as here, differences of a few hundredths mean nothing. (`python -m benchmarks suite` has 28 data sets.)
