r"""Features of a squared exponential kernel at landmarks, by which a linear model is smooth.

================== =========================================== ====================== ==========
symbol             meaning                                     code                   shape
================== =========================================== ====================== ==========
:math:`z_m`        landmark m, in the space of the features    ``landmarks``          (M, F)
:math:`\ell_f`     length scale of feature f                   ``log_length_scale``   (F,)
:math:`R`          root of the kernel's inverse at landmarks   ``root``               (M, M)
================== =========================================== ====================== ==========

.. math:: k(x, z) = \exp\Bigl(-\tfrac12 \sum_f \frac{(x_f - z_f)^2}{\ell_f^2}\Bigr), \qquad
    \varphi(x) = R^\top k(z, x), \qquad R R^\top = k(z, z)^{-1}

A linear model of :math:`\varphi` with independent standard normal coefficients is a Gaussian
process with Nyström's approximation of the kernel [1]_: exact at the landmarks.

References
----------
.. [1] C. K. I. Williams and M. Seeger. Using the Nyström method to speed up kernel machines, 2001.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["KernelFeatures", "PrincipalFeatures"]

JITTER = 1e-6
"""What is added to the kernel's diagonal at the landmarks, some of which may be the same."""


class KernelFeatures(nn.Module):
    """Features of a squared exponential kernel.

    Parameters
    ----------
    landmarks
        (M, F), points in the space of the features.
    log_length_scale
        (F,), logarithm of the distance, for each feature, at which the kernel is 0.61.

    Examples
    --------
    >>> features = KernelFeatures(torch.tensor([[0.0], [1.0]]), torch.zeros(1))
    >>> kernel = features(torch.tensor([[0.0], [1.0]])).square().sum(-1)  # k(x, x)
    >>> [round(value, 3) for value in kernel.tolist()]
    [1.0, 1.0]
    """

    fixed_graph = True
    landmarks: Tensor
    log_length_scale: Tensor
    root: Tensor

    def __init__(self, landmarks: Tensor, log_length_scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("landmarks", landmarks)
        self.register_buffer("log_length_scale", log_length_scale)
        root = kernel_root(landmarks.double(), log_length_scale.double())
        self.register_buffer("root", root)

    def forward(self, x: Tensor) -> Tensor:
        r"""Compute the features of rows (\*L, F), (\*L, M)."""
        at, log_scale = self.landmarks.double(), self.log_length_scale.double()
        return (squared_exponential(x.double(), at, log_scale) @ self.root).to(x.dtype)


class PrincipalFeatures(KernelFeatures):
    """Kernel features, times ``scale``, along their principal axes over rows ``x``, (rows, F).

    Where their coefficients have independent posteriors, least is lost along these axes.

    Examples
    --------
    >>> x = torch.linspace(-1, 1, 9)[:, None]
    >>> features = PrincipalFeatures(x[::4], torch.zeros(1), x)
    >>> moments = features(x).T @ features(x)
    >>> bool((moments - moments.diag().diag()).abs().max() < 1e-5)
    True
    """

    fixed_graph = True

    def __init__(
        self, landmarks: Tensor, log_length_scale: Tensor, x: Tensor, scale: float = 1.0
    ) -> None:
        super().__init__(landmarks, log_length_scale)
        features = self(x.double())
        axes = torch.linalg.eigh(features.mT @ features).eigenvectors.flip(-1)
        self.root = scale * self.root @ axes


def squared_exponential(x: Tensor, at: Tensor, log_length_scale: Tensor) -> Tensor:
    r"""Compute the kernel of rows (\*L, F) and landmarks (M, F), (\*L, M)."""
    unit = (-log_length_scale).exp()
    x, at = x * unit, at * unit
    squares = (x**2).sum(-1, keepdim=True) + (at**2).sum(-1) - 2 * x @ at.mT
    return (-0.5 * squares.clamp_min(0.0)).exp()


def kernel_root(at: Tensor, log_length_scale: Tensor) -> Tensor:
    """Compute a root of the inverse of the kernel at landmarks, (M, M)."""
    kernel = squared_exponential(at, at, log_length_scale)
    eye = torch.eye(len(at), dtype=at.dtype, device=at.device)
    lower = torch.linalg.cholesky(kernel + JITTER * eye)
    return torch.linalg.solve_triangular(lower, eye, upper=False).mT
