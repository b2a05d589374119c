"""The animation of lesson 5: posteriors and source weights during a fit.

python -m lessons.animate_groups             writes docs/lessons/groups-appear.gif
"""

from pathlib import Path

import matplotlib
import numpy as np
import pyro
import torch
from matplotlib import animation
from matplotlib import pyplot as plt
from pyro import poutine

from pyro_vmtl import MeanFieldELBO, Preset, TaskData, relatedness

TARGET = Path(__file__).resolve().parent.parent / "docs" / "lessons" / "groups-appear.gif"

SLOPES = torch.tensor([0.9, 1.0, 1.1, -1.1, -1.0, -0.9])
"""Of six tasks in two groups."""

ROWS, NOISE, STEPS, EVERY = 10, 0.7, 400, 10

COLORS = ["#0072B2"] * 3 + ["#D55E00"] * 3
STYLES = ["-", "--", ":"] * 2
WIDTHS = [2.5] * 3 + [1.2] * 3  # which group, in grey, too


def record() -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """Fit, and return steps, means and standard deviations of the slopes, and weights."""
    pyro.set_rng_seed(0)
    X, noise = torch.randn(6 * ROWS, 1), NOISE * torch.randn(6 * ROWS)
    tasks = torch.arange(6).repeat_interleave(ROWS)
    data = TaskData.regression(X, SLOPES[tasks] * X[:, 0] + noise, tasks.tolist())
    sharing = {"start": "even", "min_base_weight": "tasks"}
    preset = Preset(init_loc_scale=0.1, init_scale=0.5, sharing=sharing)
    model, guide = preset.initial_programs(data)
    loss = MeanFieldELBO(num_particles=8)(model, guide)
    loss(data)  # makes the parameters of lazy guides
    adam = torch.optim.Adam(loss.parameters(), lr=0.03)
    steps, means, stds, weights = [], [], [], []
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            w = poutine.trace(guide).get_trace(data).nodes["w"]["fn"]
            steps.append(step)
            means.append(w.mean.detach().flatten().clone().numpy())
            stds.append(w.stddev.detach().flatten().numpy())
            weights.append(relatedness(guide, "w", num_samples=400).mean(0).numpy())
        adam.zero_grad()
        loss(data).backward()
        adam.step()
    return steps, np.array(means), np.array(stds), np.array(weights)


def draw() -> animation.FuncAnimation:
    """Draw posteriors on the left, and the heat map of the weights on the right."""
    steps, means, stds, weights = record()
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.3), width_ratios=[1.5, 1])
    fig.subplots_adjust(left=0.03, right=0.98, bottom=0.16, top=0.86, wspace=0.2)
    grid = np.linspace(-2, 2, 300)
    look = zip(range(6), COLORS, STYLES, WIDTHS, strict=True)
    lines = [left.plot([], [], s, color=c, lw=w, label=f"task {t}")[0] for t, c, s, w in look]
    left.set(xlim=(-2, 2), ylim=(0, 0.45 / stds.min()), yticks=[], xlabel="slope of a task")
    left.legend(frameon=False, fontsize=9, loc="upper left")
    left.spines[["top", "right", "left"]].set_visible(False)
    image = right.imshow(weights[0], cmap="Blues", vmin=0, vmax=0.6)
    right.set_xticks(range(7), [*"012345", "base"])
    right.set(xlabel="source", ylabel="task", title="source weights")
    fig.colorbar(image, ax=right, shrink=0.8)

    def show(frame: int) -> None:
        for line, mean, std in zip(lines, means[frame], stds[frame], strict=True):
            density = np.exp(-0.5 * ((grid - mean) / std) ** 2) / std / np.sqrt(2 * np.pi)
            line.set_data(grid, density)
        left.set_title(f"posteriors, step {steps[frame]}", loc="left")
        image.set_data(weights[frame])

    frames = [*range(len(steps)), *[len(steps) - 1] * 12]  # the end stays for a while
    return animation.FuncAnimation(fig, show, frames)


if __name__ == "__main__":
    matplotlib.use("agg")
    draw().save(TARGET, animation.PillowWriter(fps=6), dpi=75)
    print(f"{TARGET}: {TARGET.stat().st_size / 1e3:.0f} KB")
