# %% [markdown]
# # 4. Variational inference you can check
#
# Posteriors of real models cannot be computed. Variational inference looks for the best one among simple ones. How good is that?
# Take a model whose posterior *can* be computed, and look.
#
# **The idea of this lesson:** a mean-field posterior (independent normals) finds the right means, and is too narrow by
# $\sqrt{1 - \rho^2}$ where coefficients are correlated. You need: linear regression, and the multivariate normal.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.patches import Ellipse
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import LinearResponse, MeanFieldELBO, TaskData, fit
from pyro_vmtl.analysis import from_pyro_svi, psis_khat

NOISE, RHO = 0.5, 0.9
random = torch.Generator().manual_seed(0)
first, other = torch.randn(2, 30, generator=random)
x = torch.stack(
    [first, -RHO * first + (1 - RHO**2) ** 0.5 * other], -1
)  # two features, alike but for the sign
y = x @ torch.tensor([1.0, 1.0]) + NOISE * torch.randn(30, generator=random)
data = TaskData.regression(x, y, ["one task"] * 30)

# %% [markdown]
# ## The exact posterior
#
# With prior $N(0, I)$ and known noise σ, the posterior of the two coefficients is normal:
#
# $$\Lambda = I + X^\top X / \sigma^2, \qquad m = \Lambda^{-1} X^\top y / \sigma^2, \qquad w \sim N(m, \Lambda^{-1}).$$

# %%
precision = torch.eye(2) + x.T @ x / NOISE**2
covariance = precision.inverse()
mean = covariance @ (x.T @ y) / NOISE**2
rho = float(covariance[0, 1] / (covariance[0, 0] * covariance[1, 1]) ** 0.5)
print(
    f"mean {mean.numpy().round(2)}, sd {covariance.diag().sqrt().numpy().round(3)}, correlation {rho:.2f}"
)

# %% [markdown]
# ## The variational posterior
#
# The guide `AutoNormal` is mean field: it has a mean and a scale for each number, and no correlations. `fit` turns its knobs so that the *ELBO*
# is largest, a lower bound of the log evidence:
#
# $$\mathrm{ELBO} = \mathbb{E}_q \log p(y \mid w) - \mathrm{KL}(q \,\|\, p) \;=\; \log p(y) - \mathrm{KL}(q \,\|\, p(w \mid y)).$$
#
# The right-hand side says what that means: the gap to the evidence *is* the distance to the posterior.


# %%
def model(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        centre = (data.x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(centre, NOISE), obs=data.y)


torch.manual_seed(0)
guide = AutoNormal(model)
elbo = MeanFieldELBO(num_points=8)  # eight fixed points in place of random draws: exact here
result = fit(model, guide, data, elbo=elbo, num_steps=800, learning_rate=0.05)
loc = guide.locs.w.detach().reshape(2)
scale = guide.scales.w.detach().reshape(2)
print(f"mean {loc.numpy().round(2)}, sd {scale.numpy().round(3)}")


# %% alt="Left: the exact posterior is a long tilted ellipse, the mean-field one a small upright ellipse inside it with the same centre. Right: the loss falls to a constant distance above the negative log evidence."
def ellipse(ax, mean, covariance, **style):
    """Draw the region with 90 % probability of a normal of two numbers."""
    values, vectors = np.linalg.eigh(covariance)
    width, height = 2 * np.sqrt(values * -2 * np.log(0.1))
    angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
    ax.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, linewidth=2, **style))


evidence = dist.MultivariateNormal(torch.zeros(30), x @ x.T + NOISE**2 * torch.eye(30)).log_prob(y)
fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.7), layout="constrained")
ellipse(left, mean.numpy(), covariance.numpy(), edgecolor="#0072B2", label="exact")
ellipse(
    left,
    loc.numpy(),
    np.diag(scale.numpy() ** 2),
    edgecolor="#D55E00",
    linestyle="dashed",
    label="mean field",
)
reach = 3 * float(covariance[0, 0]) ** 0.5
left.set(
    xlim=(mean[0] - reach, mean[0] + reach), ylim=(mean[1] - reach, mean[1] + reach), aspect="equal"
)
left.set(xlabel="w₁", ylabel="w₂", title="90 % of the posterior")
left.legend(frameon=False, loc="upper left")
right.plot(result.history.loss, color="#D55E00")
right.axhline(-evidence, color="#0072B2", linestyle="dashed")
right.text(
    len(result.history.loss) * 0.4, -evidence - 0.4, "− log evidence", color="#0072B2", va="top"
)
right.set(xlabel="step", ylabel="loss = − ELBO (nats)", title="It gets near, and not nearer")
right.set_ylim(float(-evidence) - 3, float(-evidence) + 15)
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
gap = float(result.history.loss[-1] + evidence)
print(f"gap {gap:.2f} nats; -log(1 - rho²)/2 = {-0.5 * np.log(1 - rho**2):.2f}")

# %% [markdown]
# The means agree. The widths do not, and that is no failure of the optimiser: of all upright ellipses this is the best. It has to
# stay where the posterior is, since $\mathrm{KL}(q\|p)$ punishes being where $p$ is not.
#
# **Exercise 1.** The best independent normals have the variances $1/\Lambda_{ii}$, and the exact ones are $(\Lambda^{-1})_{ii}$. For
# two numbers with correlation `rho`, by which factor are the mean-field *standard deviations* too small? (Invert a 2 × 2 matrix by hand.)


# %% tags=["exercise"]
def factor(rho):
    return ...


# %% tags=["wrong"]
def factor(rho):
    return 1 - rho**2


# %% tags=["solution"]
def factor(rho):
    return (1 - rho**2) ** 0.5


# %% tags=["check"]
assert factor(0.0) == 1, "without correlation mean field is exact"
assert abs(factor(0.9) - 0.436) < 1e-3, (
    "the variances are too small by 1 - rho², what about their roots?"
)
seen = scale / covariance.diag().sqrt()
assert torch.allclose(seen, torch.tensor(factor(rho)), atol=0.02)
print(
    f"At 0.9: {factor(0.9):.2f}. In the fit above: {seen.numpy().round(2)}, and by the formula {factor(rho):.2f}."
)

# %% [markdown]
# ## Which statements are too sure?
#
# Not all. Look at the ellipses along the other diagonal.
#
# **Exercise 2.** Compute the ratio of standard deviations, mean field over exact, of the *sum* $w_1 + w_2$ and of the *difference*
# $w_1 - w_2$. Use `covariance` and `scale`.

# %% tags=["exercise"]
ratio_of_sum, ratio_of_difference = ..., ...

# %% tags=["wrong"]
both = float((scale**2).sum()) ** 0.5
ratio_of_sum = ratio_of_difference = both / float(covariance.diag().sum()) ** 0.5

# %% tags=["solution"]
both = float((scale**2).sum()) ** 0.5  # independent: the same for both
one = torch.ones(2)
minus = torch.tensor([1.0, -1.0])
ratio_of_sum = both / float(one @ covariance @ one) ** 0.5
ratio_of_difference = both / float(minus @ covariance @ minus) ** 0.5

# %% tags=["check"]
assert min(ratio_of_sum, ratio_of_difference) < 0.5, "along the long axis it is much too sure"
assert max(ratio_of_sum, ratio_of_difference) > 1.1, "along the short axis it is not sure enough"
print(f"sum {ratio_of_sum:.2f}, difference {ratio_of_difference:.2f}")

# %% [markdown]
# ## When there is no exact posterior
#
# Then two things still help. **Pareto's k** compares draws of the guide with the model's density: above 0.7 the guide misses
# too much of the posterior for its draws to be reweighted. **Linear response** asks how the optimum would move if the model were tilted a little, and
# gets from that the covariances that a mean-field posterior lacks. (Here it is exact; in general it is an approximation around the optimum.)

# %% alt="The exact posterior as an ellipse with 400 draws of the guide that was corrected by linear response: they fill it, tilt and all; the small upright ellipse of mean field covers its middle."
print(
    f"Pareto's k of mean field: {float(psis_khat(from_pyro_svi(model, guide, data, seed=0)).khat):.2f}"
)
corrected = LinearResponse(model, guide, data, elbo=elbo).correct("w")
torch.manual_seed(0)
with torch.no_grad(), pyro.plate("draws", 4000, dim=-3):
    draws = poutine.trace(corrected).get_trace(data).nodes["w"]["value"].reshape(-1, 2)
fig, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
ax.plot(*draws[:400].T, ".", color="0.6", markersize=3, label="draws, corrected")
ellipse(ax, mean.numpy(), covariance.numpy(), edgecolor="#0072B2", label="exact")
ellipse(
    ax,
    loc.numpy(),
    np.diag(scale.numpy() ** 2),
    edgecolor="#D55E00",
    linestyle="dashed",
    label="mean field",
)
ax.set(xlabel="w₁", ylabel="w₂", title="Linear response", aspect="equal")
ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# **Exercise 3.** Compute the standard deviations of the two coefficients from `draws`, (4000, 2), as a tensor `sd` of two numbers.

# %% tags=["exercise"]
sd = ...

# %% tags=["wrong"]
sd = scale

# %% tags=["solution"]
sd = draws.std(0)

# %% tags=["check"]
assert sd.shape == (2,), "a standard deviation for each coefficient"
assert torch.allclose(sd, covariance.diag().sqrt(), rtol=0.06), "4,000 draws: within some 3 %"
print(f"linear response {sd.numpy().round(3)}, exact {covariance.diag().sqrt().numpy().round(3)}")

# %% [markdown]
# ## What to report
#
# - Which family the posterior was looked for in ("mean field"), and that its intervals are narrow where coefficients are correlated.
# - Pareto's k; intervals by linear response, or by a guide with covariances, where they matter.
# - Predictions are hurt less than coefficients: along the data the errors of the two cancel in part. That is a reason to look at both,
#   and [lesson 7](lesson_7_calibration.md) does.
