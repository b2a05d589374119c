r"""A Gaussian process for many tasks, as a method: smooth functions that the tasks combine.

The landmarks of the kernel are centres of clusters of the rows. Its length scales have the largest
evidence of a model with one function that all tasks have in common and an intercept for each: given
the scales everything else is integrated out, and L-BFGS takes some dozens of evaluations.
Functions, loadings and slopes are then fitted given the kernel
(:class:`~pyro_vmtl.guides.CoregionalizedNormal`).
"""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vmtl.data.limits import LimitError, check_limit
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.guides.conjugate import InverseAndLogDet, sums_over_rows
from pyro_vmtl.guides.coregionalized import CoregionalizedNormal, integrate_own
from pyro_vmtl.inference.elbo import MeanFieldELBO
from pyro_vmtl.inference.lbfgs import NotFactorizedError
from pyro_vmtl.methods.by_features import FEW
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.method import ProgramMethod
from pyro_vmtl.models.coregionalized_regressor import CoregionalizedRegressor
from pyro_vmtl.models.kernel_features import KernelFeatures, kernel_root, squared_exponential
from pyro_vmtl.models.task_noise import LogNormalNoise

__all__ = ["GaussianProcess", "learn_length_scales"]

MOST_ROWS = 1_000
"""Rows that length scales are learned from, and four times as many that are clustered."""

MOST_LANDMARKS, NUM_EVALUATIONS = 50, 30

COPIES = 10
"""Matrices of each task that a fit holds at once."""

EVALUATIONS_FROM_START = 20
"""Evaluations that are enough from the parameters of a fit to similar rows."""

LEAST_NOISE = 0.01
"""Standard deviation of the noise, in units of the targets: with none, sums cancel."""

MOST_CHANGE = 5.0
"""Change of the logarithm of a length scale, beyond which a feature is without effect."""

SPREAD = 0.5
"""Prior standard deviation of the logarithms of length scales about the usual one."""


@dataclass(frozen=True)
class GaussianProcess(ProgramMethod):
    """A Gaussian process of real targets, with random slopes of the features.

    Parameters
    ----------
    num_landmarks
        M, points at which the kernel is exact.
    num_factors
        Q, functions that tasks combine.
    num_steps
        Evaluations of L-BFGS at most.

    Examples
    --------
    >>> X = torch.linspace(-2, 2, 40)[:, None]
    >>> data = TaskData.regression(X, torch.sin(2 * X[:, 0]), ["a", "b"] * 20).with_intercept()
    >>> fitted = GaussianProcess(num_landmarks=20).fit(data)
    >>> bool((fitted.predictive(data).mean - data.y).abs().max() < 0.1)
    True
    """

    num_landmarks: int = 100
    num_factors: int = 3
    num_steps: int = 60

    subsamples_tasks = True

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in ("num_landmarks", "num_factors", "num_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1.")

    def fit_settings(self, data: TaskData) -> dict[str, Any]:
        """Return the arguments of :func:`~pyro_vmtl.fit`."""
        return {"elbo": MeanFieldELBO(), "optimizer": "lbfgs", "num_steps": self.num_steps}

    def for_trial(self) -> GaussianProcess:
        """Return a method that takes half of the evaluations."""
        return replace(self, num_steps=-(-self.num_steps // 2))

    def _settings_from(self, start: Member | None, data: TaskData) -> dict[str, Any]:
        settings = super()._settings_from(start, data)
        if start is not None:
            settings["num_steps"] = min(self.num_steps, EVALUATIONS_FROM_START)
        return settings

    def programs(self, data: TaskData) -> tuple[nn.Module, nn.Module]:
        """Return model and guide for training rows, not yet fitted."""
        if data.classes is not None:
            raise ValueError("The rows have classes, expected real targets.")
        if data.num_features > FEW:
            raise LimitError(
                f"The rows have {data.num_features} features, expected at most {FEW} for a "
                "Gaussian process. Reduce them, for example with sklearn.decomposition.PCA."
            )
        numbers = COPIES * data.num_tasks * (data.num_features + self.num_landmarks) ** 2
        check_limit("NUMBERS", numbers, "A Gaussian process of so many tasks", "If there is memory")
        at = landmarks(data.x[data.mask], self.num_landmarks)
        features = KernelFeatures(at, learn_length_scales(data).to(at))
        sizes = data.num_features, self.num_landmarks, self.num_factors
        model = CoregionalizedRegressor(features, *sizes, LogNormalNoise())
        model = model.to(data.x.device)
        return model, CoregionalizedNormal(model, data)


def landmarks(x: Tensor, number: int) -> Tensor:
    """Choose centres of clusters of rows (rows, F), (number, F); repeated where rows are few."""
    from sklearn.cluster import KMeans  # so that an import of the package does not wait for it

    some = x[_permutation(len(x))[: 4 * MOST_ROWS]].cpu().numpy()
    clusters = KMeans(min(number, len(some)), n_init=1, max_iter=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows may be duplicates
        found = torch.from_numpy(clusters.fit(some).cluster_centers_).to(x)
    return found[torch.arange(number, device=found.device) % len(found)]


def learn_length_scales(data: TaskData) -> Tensor:
    """Compute the length scales of features, (F,), as logarithms.

    Without rows that say something, they are the median distance of rows.
    """
    rows = data.x[data.mask].double()
    some = rows[_permutation(len(rows))[:500]]
    distance = torch.pdist(some).median() if len(some) > 1 else rows.new_zeros(())
    usual = distance.clamp_min(1e-3).log().expand(data.num_features)
    if data.y is None or len(rows) < 5 or not data.y[data.mask].double().std() > 0:
        return usual
    train = _subsample(data)
    evidence = _Evidence(train, landmarks(rows, MOST_LANDMARKS), usual)
    optimizer = torch.optim.LBFGS(
        evidence.parameters(), max_iter=NUM_EVALUATIONS, line_search_fn="strong_wolfe"
    )
    best = math.inf, usual

    def closure() -> Tensor:
        nonlocal best
        optimizer.zero_grad()
        loss: Tensor = evidence()
        loss.backward()
        best = min(best, (loss.item(), evidence.length_scales().detach()), key=lambda b: b[0])
        return loss

    with torch.enable_grad(), suppress(NotFactorizedError):
        evidence.start()
        optimizer.step(closure)
    return best[1].clamp(usual - MOST_CHANGE, usual + MOST_CHANGE)


class _Evidence(nn.Module):
    """The negative log evidence of a function in common and intercepts of the tasks."""

    def __init__(self, data: TaskData, at: Tensor, usual: Tensor) -> None:
        super().__init__()
        self.data, self.at, self.usual = data, at, usual
        size = data.num_features
        zeros = usual.new_zeros
        self.common, self.apart = nn.Parameter(zeros(())), nn.Parameter(zeros(size))
        self.own_scale = nn.Parameter(zeros(1) + math.log(0.3))
        self.scales = nn.Parameter(torch.tensor([0.3, 1.0, 0.5]).to(usual).log())

    @torch.no_grad()
    def start(self) -> None:
        """Start at the best of a few scales, far from optima where the kernel is white noise."""
        losses = {}
        for common, noise in product((-0.7, 0.0, 0.7), (0.1, 0.5)):
            self.common.fill_(common)
            self.scales[2] = math.log(noise)
            losses[common, noise] = float(self())
        common, noise = min(losses, key=losses.__getitem__)
        self.common.fill_(common)
        self.scales[2] = math.log(noise)

    def length_scales(self) -> Tensor:
        return self.usual + self.common + self.apart

    def forward(self) -> Tensor:
        data, log_length_scale = self.data, self.length_scales()
        linear, smooth, noise = self.scales.exp()
        noise = (noise**2 + LEAST_NOISE**2).sqrt()
        kernel = squared_exponential(data.x, self.at, log_length_scale)
        features = kernel @ kernel_root(self.at, log_length_scale)
        x = torch.cat([torch.ones_like(data.x[..., :1]), data.x, features], -1)
        sums = sums_over_rows(data, x)
        precision = (noise**-2).expand(data.num_tasks, 1)
        of_rows = integrate_own(
            sums["xx"], sums["xy"][..., None], sums["yy"], precision, self.own_scale.exp()
        )
        unit = torch.cat([linear.expand(1 + data.num_features), smooth.expand(len(self.at))])
        eye = torch.eye(len(unit), dtype=unit.dtype, device=unit.device)
        H, h = unit[:, None] * of_rows.H.sum(0) * unit, unit * of_rows.h.sum(0).squeeze(-1)
        inverse, log_det = InverseAndLogDet.apply(eye + (H + H.mT) / 2)
        num_rows = sums["num_rows"].sum()
        loss = of_rows.k.sum() - h @ inverse @ h + log_det + of_rows.log_det.sum()
        loss = loss + 2 * num_rows * noise.log()
        priors = self.apart / SPREAD, self.common / SPREAD
        return 0.5 * (loss + sum(prior.square().sum() for prior in priors))


def _subsample(data: TaskData) -> TaskData:
    """Choose some rows of some tasks, in float64, with standardized targets."""
    tasks = _permutation(data.num_tasks)[: MOST_ROWS // 10].to(data.x.device)
    each = max(10, MOST_ROWS // len(tasks))
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(data.mask.shape, generator=generator).to(data.x.device)
    index = order.masked_fill(~data.mask, 2.0)[tasks].argsort(1)[:, :each]
    some = data.map_rows(lambda values: values[tasks])
    some = some.take(index, some.mask.gather(1, index))
    assert some.y is not None
    y = some.y.double()
    y = (y - y[some.mask].mean()) / y[some.mask].std().clamp_min(1e-12)
    return replace(some, x=some.x.double(), y=y)


def _permutation(size: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))
