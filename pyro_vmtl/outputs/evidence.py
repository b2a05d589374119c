r"""Which gates the rows speak for: the evidence of feedback from each output to another.

Given what the others said last, an output is a generalized linear regression on it,

.. math:: \eta_t = a_t + \sum_s A_{st}' (p_s - \pi_s) + c_t' a + b_t,

where the static logits :math:`a` of all outputs may take any share of it: most of what a prediction
says is linear in the logits that it was made from, and no reason for feedback. At the optimum the
posterior of :math:`A_t` is about normal, with mean m and precision H once c and b are integrated
out. By the Savage-Dickey density ratio at 0 [1]_ the evidence of open gates is

.. math:: \log p(y \mid \mathrm{open}) - \log p(y \mid \mathrm{shut})
    = \tfrac{1}{2} m' H m - \tfrac{1}{2} \log |H|

in units in which the prior of a weight is standard normal. The most probable gates are sought one
at a time, and each has its probability beside the others. The posterior of a fit by variational
inference would not do: it takes A as independent of the coefficients, and is too narrow.

References
----------
.. [1] Dickey, J. M. (1971). The Weighted Likelihood Ratio, Linear Hypotheses on Normal Location
   Parameters. Annals of Mathematical Statistics 42.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vmtl.outputs.responses import Response

__all__ = ["Regression", "gate_log_probabilities"]

NEWTON_STEPS = 50

SETTLED = 1e-6
"""Nats that a step of Newton's method promises at the optimum."""


@dataclass(frozen=True, eq=False)
class Regression:
    """One output of N rows, as a regression of its J numbers on what other outputs say.

    Features are (N, J, D) or (N, 1, D), in units of the prior scale of their weights: those of
    gates by the output that feeds and what its gate lets in, and those that are always open.
    """

    response: Response
    eta: Tensor  # (N, J), without feedback
    start: Tensor  # (N, J), with that of the fit
    value: Tensor  # (N, J), observed, as means
    precision: Tensor  # (N, 1), of a row
    features: Mapping[tuple[int, int], Tensor]
    always: Tensor

    def posterior(self) -> tuple[Tensor, Tensor]:
        """Find mean (J, D) and precision (J, D, D) of the weights of all gates.

        Numbers of classes are taken as independent, with the curvature that they have if there are
        two, or if all are as probable.
        """
        size, eta = self.eta.shape[1], self.eta
        curving = size / max(size - 1, 1) if size > 1 else 1.0
        blocks = [*self.features.values(), self.always]
        tables = [
            torch.cat([block[:, min(j, block.shape[1] - 1)] for block in blocks], 1)
            for j in range(size)
        ]
        one = torch.eye(tables[0].shape[1]).to(eta)
        # far from the fit, strong feedback would send Newton's method astray
        weights = torch.stack(
            [
                torch.linalg.solve(x.mT @ x + one, x.mT @ (self.start - eta)[:, j])
                for j, x in enumerate(tables)
            ]
        )

        def gradient(weights: Tensor) -> tuple[Tensor, Tensor]:
            eta = self.eta + torch.stack([x @ w for x, w in zip(tables, weights, strict=True)], 1)
            means = self.response.mean(eta)
            slopes = curving * self.precision * self.response.variance(means)
            residuals = self.precision * (self.value - means)
            of_rows = [x.mT @ residuals[:, j] for j, x in enumerate(tables)]
            return torch.stack(of_rows) - weights, slopes

        for _ in range(NEWTON_STEPS):
            found, slopes = gradient(weights)
            precisions = torch.stack(
                [(x.mT * slopes[:, j]) @ x + one for j, x in enumerate(tables)]
            )
            change = torch.linalg.solve(precisions, found[..., None])[..., 0]
            promised, length = (found * change).sum(), 1.0
            if promised < SETTLED:
                break
            # the objective is concave: where it falls along a step, the step was too long
            while (gradient(weights + length * change)[0] * change).sum() < -promised / 2:
                length /= 2
            weights = weights + length * change
        of_gates = slice(weights.shape[1] - self.always.shape[-1])
        marginal = torch.linalg.inv(torch.linalg.inv(precisions)[:, of_gates, of_gates])
        return weights[:, of_gates], marginal

    def log_evidence(self) -> Callable[[Mapping[int, int]], float]:
        """Return the log evidence of open gates, beside none, as a function of them."""
        mean, precision = self.posterior()
        linear = precision @ mean[..., None]
        freedom = 1 - 1 / len(mean) if len(mean) > 1 else 1.0
        sizes = [block.shape[-1] for block in self.features.values()]
        numbers = torch.arange(sum(sizes)).split(sizes)
        places = dict(zip(self.features, numbers, strict=True))

        def evidence(opened: Mapping[int, int]) -> float:
            if not opened:
                return 0.0
            at = torch.cat([places[choice] for choice in opened.items()])
            root = torch.linalg.cholesky(precision[:, at][:, :, at])
            units = torch.linalg.solve_triangular(root, linear[:, at], upper=False)
            log_root = root.diagonal(dim1=-2, dim2=-1).log().sum()
            return float(units.square().sum() / 2 - freedom * log_root)

        return evidence


def gate_log_probabilities(rows: Regression, prior: Tensor) -> Tensor:
    """Return the log probabilities of the gates to an output, (T, G), from those of the prior."""
    evidence, opened, result = rows.log_evidence(), dict[int, int](), prior.clone()
    while True:
        best = 0.0, -1, 0
        for source in dict.fromkeys(s for s, _ in rows.features):
            others = {s: g for s, g in opened.items() if s != source}
            gates = [g for s, g in rows.features if s == source]
            found = [evidence(others)] + [evidence(others | {source: gate}) for gate in gates]
            scores = prior[source].clone()
            scores[[0, *gates]] += torch.tensor(found).to(prior)
            result[source] = scores.log_softmax(0)
            gain = float(scores.max() - scores[opened.get(source, 0)])
            best = max(best, (gain, source, int(scores.argmax())))
        gain, source, gate = best
        if gain <= 0:
            return result
        opened = {s: g for s, g in opened.items() if s != source} | ({source: gate} if gate else {})
