r"""Length scales of a kernel, learned by the evidence of functions that tasks combine.

The model is that of :class:`~pyro_vmtl.models.CoregionalizedRegressor`, with noise that all tasks
have in common. Own coefficients and functions are integrated out, loadings have independent normal
posteriors, and L-BFGS minimizes the negative ELBO in these, the scales and the length scales.
"""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor, nn

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.guides.conjugate import sums_over_rows
from pyro_vmtl.guides.coregionalized import integrate_own, posterior_of_factors
from pyro_vmtl.inference.lbfgs import NotFactorizedError
from pyro_vmtl.models.kernel_features import kernel_root, squared_exponential

__all__ = ["LEAST_GAIN", "evidence_gain", "landmarks", "learn_length_scales"]

LEAST_GAIN = 5.0
"""Log evidence in nats; below, a method for targets that are not linear promises nothing."""

MOST_ROWS = 1_000
"""Rows that length scales are learned from, and four times as many that are clustered."""

MOST_LANDMARKS, NUM_EVALUATIONS = 100, 50

FEW_LANDMARKS, FEW_EVALUATIONS = 30, 30
"""Enough to see whether targets are linear."""

LEAST_NOISE = 0.01
"""Standard deviation of the noise, in units of the targets: with none, sums cancel."""

MOST_CHANGE = 5.0
"""Change of the logarithm of a length scale, beyond which a feature is without effect."""

SHORTER = -1.4
"""Change of the logarithm of one feature's length scale, to see whether that helps."""

MOST_ALONE = 30
"""Features that are tried alone."""

SPREAD = 0.5
"""Prior standard deviation of the logarithms of length scales about the usual one."""


def landmarks(x: Tensor, number: int) -> Tensor:
    """Choose centres of clusters of rows (rows, F), (number, F); repeated where rows are few."""
    from sklearn.cluster import KMeans  # so that an import of the package does not wait for it

    some = x[_permutation(len(x))[: 4 * MOST_ROWS]].cpu().numpy()
    clusters = KMeans(min(number, len(some)), n_init=1, max_iter=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows may be duplicates
        found = torch.from_numpy(clusters.fit(some).cluster_centers_).to(x)
    return found[torch.arange(number, device=found.device) % len(found)]


def learn_length_scales(data: TaskData, num_landmarks: int = 100, num_factors: int = 3) -> Tensor:
    """Compute the length scales of features, (F,), as logarithms.

    Without rows that say something, they are the median distance of rows.

    Parameters
    ----------
    data
        Rows with real targets, which may have columns (T, N, C): each has functions of its own.
    num_landmarks, num_factors
        M and Q. With more landmarks than a model has, length scales would be too short for it.
    """
    if not _says_something(data):
        return _usual_length_scale(data)
    at = landmarks(data.x[data.mask].double(), min(num_landmarks, MOST_LANDMARKS))
    _, coarse = _linear_and_smooth(data, num_factors)
    smooth = coarse.with_landmarks(at).minimize(NUM_EVALUATIONS)
    found, usual = smooth.length_scales().detach(), smooth.usual
    return found.clamp(usual - MOST_CHANGE, usual + MOST_CHANGE)


def evidence_gain(data: TaskData, num_factors: int = 3) -> float:
    """Compute how much larger the log evidence is than that of linear functions, in nats.

    It is about 0 where targets are linear.
    """
    if not _says_something(data):
        return 0.0
    linear, smooth = _linear_and_smooth(data, num_factors)
    gain = linear.least - smooth.least
    return gain if math.isfinite(gain) else 0.0


def _linear_and_smooth(data: TaskData, num_factors: int) -> tuple[_Evidence, _Evidence]:
    """Fit linear functions, and smooth ones with few landmarks."""
    at = landmarks(data.x[data.mask].double(), FEW_LANDMARKS)
    some, usual = _subsample(data), _usual_length_scale(data)
    linear = _Evidence(some, num_factors, usual)
    linear.minimize(NUM_EVALUATIONS, search=True)
    # Loadings vanish where nothing is linear, and are known where something is.
    starts = linear.with_landmarks(at), _Evidence(some, num_factors, usual, at)
    smooth = (start.minimize(FEW_EVALUATIONS, search=True) for start in starts)
    return linear, min(smooth, key=lambda found: found.least)


def _says_something(data: TaskData) -> bool:
    y = None if data.y is None else data.y[data.mask].double()
    return y is not None and len(y) >= 5 and y.numel() > 0 and bool((y.std(0) > 0).any())


def _usual_length_scale(data: TaskData) -> Tensor:
    rows = data.x[data.mask].double()
    some = rows[_permutation(len(rows))[:500]]
    distances = torch.pdist(some)
    apart = distances[distances > 0]  # many rows may be the same
    distance = apart.median() if len(apart) else rows.new_zeros(())
    return distance.clamp_min(1e-3).log().expand(data.num_features)


class _Evidence(nn.Module):
    """The negative ELBO of functions, loadings and own coefficients; linear without landmarks."""

    def __init__(
        self, data: TaskData, num_factors: int, usual: Tensor, at: Tensor | None = None
    ) -> None:
        super().__init__()
        self.data, self.usual, self.at = data, usual, at
        zeros = usual.new_zeros
        self.common, self.apart = nn.Parameter(zeros(())), nn.Parameter(zeros(len(usual)))
        self.own_scale = nn.Parameter(usual.new_tensor([0.5, 0.2]).log())
        self.scales = nn.Parameter(usual.new_tensor([0.3, 1.0, 0.5]).log())
        self.usual_loadings = torch.eye(num_factors).to(usual)[0]
        # Other functions than the first start at random, or their gradients would be 0.
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(data.num_tasks, num_factors, generator=generator).to(usual)
        apart = 0.5 * (1 - self.usual_loadings) * noise
        self.loadings = nn.Parameter(self.usual_loadings + apart)
        self.raw_loading_scale = nn.Parameter(torch.full_like(apart, 0.3).log())
        self.raw_spread = nn.Parameter(zeros(num_factors))

        self.least = math.inf

    def with_landmarks(self, at: Tensor) -> _Evidence:
        """Return that with landmarks, or others, which starts where this one ended."""
        smooth = _Evidence(self.data, len(self.raw_spread), self.usual, at)
        smooth.load_state_dict(self.state_dict())
        return smooth

    def minimize(self, num_evaluations: int, *, search: bool = False) -> _Evidence:
        """Go to where the loss is least; first search for a start, if that is not near."""
        optimizer = torch.optim.LBFGS(
            self.parameters(), max_iter=num_evaluations, line_search_fn="strong_wolfe"
        )
        best = {name: values.clone() for name, values in self.state_dict().items()}

        def closure() -> Tensor:
            nonlocal best
            optimizer.zero_grad()
            loss: Tensor = self()
            loss.backward()
            if loss.item() < self.least:
                self.least = loss.item()
                best = {name: values.clone() for name, values in self.state_dict().items()}
            return loss

        with torch.enable_grad(), suppress(NotFactorizedError):
            if search:
                self._start()
            optimizer.step(closure)
        self.load_state_dict(best)
        return self

    @torch.no_grad()
    def _start(self) -> None:
        """Start at the best of a few scales, far from optima where the kernel is white noise."""
        usual, nowhere = self.scales.clone(), torch.zeros_like(self.apart)

        def loss_at(apart: Tensor, common: float, smooth: float, noise: float) -> float:
            self.apart.copy_(apart)
            self.common.fill_(common)
            self.scales.copy_(usual + usual.new_tensor([0.0, smooth, noise]))
            try:
                return float(self())
            except NotFactorizedError:
                return math.inf

        places = [(nowhere, 0.0, 0.0, noise) for noise in (0.0, -1.5)]
        if self.at is not None:
            # A function of one feature of many is found by a kernel that is short in that one.
            rest = 0.0, 0.0, -0.7
            least, short = loss_at(nowhere, *rest) - 2, nowhere.clone()
            for row in torch.eye(len(nowhere)).to(usual)[self._promising()]:
                short += row * SHORTER * (loss_at(SHORTER * row, *rest) < least)
            apart = (nowhere, short) if short.any() else (nowhere,)
            places = [*product(apart, (-0.7, 0.0, 0.7), (0.0, -2.0), (0.0, -0.7, -1.4))]
        loss_at(*min(places, key=lambda place: loss_at(*place)))

    def _promising(self) -> Tensor:
        """Choose features whose shorter length scale lowers the loss most, by its gradient."""
        if len(self.apart) <= MOST_ALONE:
            return torch.arange(len(self.apart))
        with torch.enable_grad(), suppress(NotFactorizedError):
            (slope,) = torch.autograd.grad(self(), self.apart)
            return slope.argsort(descending=True)[:MOST_ALONE]
        return torch.arange(0)

    def length_scales(self) -> Tensor:
        return self.usual + self.common + self.apart

    def _design(self) -> tuple[Tensor, Tensor]:
        """Compute intercepts, features and kernel features (T, N, P), and prior scales (P,)."""
        x, (linear, smooth, _) = self.data.x, self.scales.exp()
        parts = [torch.ones_like(x[..., :1]), x]
        scales = [linear.expand(1 + x.shape[-1])]
        if self.at is not None:
            log_length_scale = self.length_scales()
            root = kernel_root(self.at, log_length_scale)
            parts += [squared_exponential(x, self.at, log_length_scale) @ root]
            scales += [smooth.expand(len(self.at))]
        return torch.cat(parts, -1), torch.cat(scales)

    def forward(self) -> Tensor:
        data, (design, unit) = self.data, self._design()
        noise = (self.scales[2].exp() ** 2 + LEAST_NOISE**2).sqrt()
        sums = sums_over_rows(data, design)
        precision = (noise**-2).expand(data.num_tasks, 1)
        intercept, slope = self.own_scale.exp()
        own_scale = torch.cat([intercept[None], slope.expand(data.num_features)])
        own = integrate_own(sums["xx"], sums["xy"], sums["yy"], precision, own_scale)
        scale, spread = self.raw_loading_scale.exp(), self.raw_spread.exp()
        second = self.loadings[..., None] * self.loadings[:, None] + torch.diag_embed(scale**2)
        factors = posterior_of_factors(own, self.loadings, second, unit)
        log_det = own.log_det.sum() + factors.log_det + 2 * sums["num_rows"].sum() * noise.log()
        loss = own.k.sum() - (factors.right * factors.loc).sum() + factors.loc.shape[1] * log_det
        squares = (scale**2 + (self.loadings - self.usual_loadings) ** 2) / spread**2
        loss = loss + (squares - 1 + 2 * (self.raw_spread - self.raw_loading_scale)).sum()
        priors = self.apart / SPREAD, self.common / SPREAD, self.raw_spread
        return 0.5 * (loss + sum(prior.square().sum() for prior in priors))


def _subsample(data: TaskData) -> TaskData:
    """Choose some rows of some tasks, in float64, with standardized targets (T, N, C)."""
    order = _permutation(data.num_tasks).to(data.x.device)
    tasks = order[data.mask.any(1)[order]][: MOST_ROWS // 10]
    each = max(10, MOST_ROWS // len(tasks))
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(data.mask.shape, generator=generator).to(data.x.device)
    index = order.masked_fill(~data.mask, 2.0)[tasks].argsort(1)[:, :each]
    some = data.map_rows(lambda values: values[tasks])
    some = some.take(index, some.mask.gather(1, index))
    assert some.y is not None
    y = some.y.double().reshape(*some.mask.shape, -1)
    y = (y - y[some.mask].mean(0)) / y[some.mask].std(0).clamp_min(1e-12)
    return replace(some, x=some.x.double(), y=y)


def _permutation(size: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))
