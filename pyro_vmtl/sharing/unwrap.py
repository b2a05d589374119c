"""Programs without what matters to a fit only."""

from __future__ import annotations

from torch import nn

from pyro_vmtl.handlers.program_handler import ProgramWithHandler
from pyro_vmtl.handlers.temper import ScaleSites
from pyro_vmtl.sharing.messengers import PoolPriors, RecordPosteriors

__all__ = ["unwrap"]


def unwrap(program: nn.Module) -> nn.Module:
    """Give a program without sharing and tempering, with the same posterior.

    These change the loss, and nothing of what is predicted. Without them there are no source
    weights to draw, T by T of them for every draw from the posterior.

    Parameters
    ----------
    program
        A model or guide, as ``share`` and ``temper`` return them.

    Examples
    --------
    >>> from pyro_vmtl import share, temper
    >>> from pyro_vmtl.guides import MeanFieldNormal
    >>> guide = MeanFieldNormal({"w": (3,)}, num_tasks=2)
    >>> _, shared = share(nn.Identity(), guide, sites=["w"])
    >>> unwrap(temper(nn.Identity(), shared, kl_weights={"w": 0.5})[1]) is guide
    True
    """
    while isinstance(program, ProgramWithHandler) and program.handler in (
        RecordPosteriors,
        PoolPriors,
        ScaleSites,
    ):
        program = program.program  # type: ignore[assignment]
    return program
