r"""Which gates the rows speak for: the evidence of feedback from each output to another.

Given what the others said last, an output is a generalized linear regression on it,

.. math:: \eta_t = a_t + \sum_s A_{st}' (p_s - \pi_s) + c_t' a + b_t,

where the static logits :math:`a` of all outputs may take any share of it: most of what a prediction
says is linear in the logits that it was made from, and no reason for feedback. At the optimum the
posterior of :math:`A_{st}` is about normal, with mean m and precision H once c and b are integrated
out. The Savage-Dickey density ratio at 0 [1]_ then is the evidence of any set of open gates,

.. math:: \log \frac{p(y \mid \mathrm{open})}{p(y \mid \mathrm{shut})}
    = \tfrac{1}{2} m' H m - \tfrac{1}{2} \log |H|

in units in which the prior of a weight is standard normal. The set that is the most probable is
sought one gate at a time, and each gate has its probability beside the others of the set. The
posterior that a fit by variational inference has of the same weights would not do: it takes them
as independent of the coefficients, and is too narrow.

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

NEWTON_STEPS = 5

Choice = tuple[int, int]
"""The output that feeds, and what its gate lets in: 1 the parameter, 2 the hidden layer."""


@dataclass(frozen=True, eq=False)
class Regression:
    """One output of N rows, as a regression of its J numbers on what other outputs say.

    Features are (N, J, D) or (N, 1, D), and weights (J, D), in units of their prior's scale.
    """

    response: Response
    eta: Tensor  # (N, J), with feedback
    value: Tensor  # (N, J), observed, as means
    precision: Tensor  # (N, 1), of a row: 0 where nothing is observed
    features: Mapping[Choice, Tensor]
    weights: Mapping[Choice, Tensor]
    static: Tensor  # (N, J, D) or (N, 1, D)

    def posterior(self) -> tuple[Tensor, Tensor]:
        """Find means (J, D) and precisions (J, D, D) of all weights, without the static ones.

        Numbers of classes are taken as independent, with the curvature that they have if there are
        two, or if all are as probable.
        """
        size = self.eta.shape[1]
        curving = size / (size - 1) if size > 1 else 1.0
        free = self.static.new_zeros(size, self.static.shape[-1])
        weights, eta = torch.cat([*self.weights.values(), free], 1), self.eta
        blocks = [*self.features.values(), self.static]
        for _ in range(NEWTON_STEPS):
            means = self.response.mean(eta)
            slopes = curving * self.precision * self.response.variance(means)
            residuals = self.precision * (self.value - means)
            changes, precisions = [], []
            for j in range(size):
                x = torch.cat([b[:, min(j, b.shape[1] - 1)] for b in blocks], 1)
                hessian = (x.mT * slopes[:, j]) @ x
                hessian.diagonal().add_(1.0)
                change = torch.linalg.solve(hessian, x.mT @ residuals[:, j] - weights[j])
                weights[j] += change
                changes.append(x @ change)
                precisions.append(hessian)
            eta = eta + torch.stack(changes, 1)
        own = sum(b.shape[-1] for b in self.features.values())
        whole = torch.stack(precisions)
        between = whole[:, :own, own:]
        taken = between @ torch.linalg.solve(whole[:, own:, own:], between.mT)
        return weights[:, :own], whole[:, :own, :own] - taken

    def log_evidence(self) -> Callable[[Mapping[int, int]], float]:
        """Return the log evidence of open gates, beside none, as a function of them."""
        mean, precision = self.posterior()
        linear = torch.einsum("jde,je->jd", precision, mean)
        size = len(mean)
        freedom = (size - 1) / size if size > 1 else 1.0
        places, at = {}, 0
        for choice, block in self.features.items():
            places[choice] = torch.arange(at, at := at + block.shape[-1])

        def evidence(opened: Mapping[int, int]) -> float:
            if not opened:
                return 0.0
            at = torch.cat([places[choice] for choice in opened.items()])
            root = torch.linalg.cholesky(precision[:, at][:, :, at])
            found = torch.linalg.solve_triangular(root, linear[:, at, None], upper=False)
            log_root = root.diagonal(dim1=-2, dim2=-1).log().sum()
            return float(found.square().sum() / 2 - freedom * log_root)

        return evidence


def gate_log_probabilities(rows: Regression, prior: Tensor) -> Tensor:
    """Return the posterior of the gates to an output, (T, G), from their prior of that shape."""
    evidence, opened = rows.log_evidence(), dict[int, int]()
    result = prior.clone()

    def score(source: int, gate: int) -> float:
        others = {s: g for s, g in opened.items() if s != source}
        log_prior = prior[source, gate] + sum(prior[s, g] - prior[s, 0] for s, g in others.items())
        return float(log_prior) + evidence(others | ({source: gate} if gate else {}))

    while True:
        gains = {}
        for source in dict.fromkeys(s for s, _ in rows.features):
            gates = [0, *(g for s, g in rows.features if s == source)]
            scores = torch.tensor([score(source, g) for g in gates], dtype=prior.dtype)
            result[source] = -torch.inf
            result[source, gates] = scores.log_softmax(0)
            at = gates.index(opened.get(source, 0))
            gains[source, gates[int(scores.argmax())]] = float(scores.max() - scores[at])
        (source, gate), gain = max(gains.items(), key=lambda item: item[1])
        if gain <= 0:
            return result
        opened.pop(source, None)
        if gate:
            opened[source] = gate
