"""The loss of a fit as a function of what is learned and of the weight of every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from pyro.infer import Trace_ELBO
from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import check_no_bare_parameters, isolated, validation
from pyro_vmtl.inference.elbo import MeanFieldELBO, evaluate
from pyro_vmtl.inference.recorder import Recorder, Replay
from pyro_vmtl.inference.step import batch_of, can_be_recorded
from pyro_vmtl.linear_response.arrowhead import Arrowhead
from pyro_vmtl.linear_response.curvature import Curvature
from pyro_vmtl.linear_response.hessian import Hessian
from pyro_vmtl.linear_response.response import free_numbers, in_double
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.method import ProgramMethod
from pyro_vmtl.sharing.messengers import Sharing
from pyro_vmtl.sharing.sources import Sources

__all__ = ["MOST_DENSE", "NUM_POINTS", "WeightedLoss"]

NUM_POINTS = 64
"""Fixed points of normal sites where a fit took draws, and common draws of all others. Means and
scales of ten classes would make more of 32 than the exact loss allows."""

MOST_DENSE = 3_000
"""Numbers up to which the Hessian is a matrix, which takes as many products with it."""

MOST_PRODUCTS = 300
"""Products with the Hessian up to which they are worth it that all blocks of it take."""


class WeightedLoss:
    """The loss of a member as a function of its parameters and of row weights, in float64.

    The programs are copied. Where their loss depends on draws, these are fixed points of normal
    posteriors, and else the same draws at every evaluation, by the seed.

    Attributes
    ----------
    member
        The copy, whose parameters the loss has.
    weight
        (T, N), the weights of the rows in the fit.
    parameters, free
        What is learned, and which of these numbers have an optimum, (n,).
    most_dense
        Numbers up to which the Hessian is a matrix.
    """

    def __init__(
        self, member: Member, data: TaskData, *, elbo: Trace_ELBO | None = None, seed: int = 0
    ) -> None:
        if elbo is None and isinstance(member.method, ProgramMethod):
            elbo = member.method.fit_settings(data).get("elbo")
        self._elbo = MeanFieldELBO() if elbo is None else elbo
        self._seed = seed
        model: Any
        guide: Any
        model, guide, (self._data,) = in_double(member.model, member.guide, (data,))
        self.member = replace(member, model=model, guide=guide)
        weight = self._data.mask.double() if self._data.weight is None else self._data.weight
        self.weight = (weight * self._data.mask).requires_grad_()
        if member.method.prepare(data).attended is not None:
            raise ValueError(
                "Representations of rows are compared with rows of other tasks, expected a method "
                "in which a row enters the loss by its own term only. Share 'w' only."
            )
        self._modules = list(self._elbo(model, guide).eval().modules())
        if any(isinstance(m, Sharing) and m.detach_sources for m in self._modules):
            raise ValueError(
                "The sources are detached from the gradient, so that the fit minimizes no single "
                "loss. Use share(detach_sources=False)."
            )
        self.parameters = [p for p in self._modules[0].parameters() if p.requires_grad]
        named = [(m, *kv) for m in self._modules for kv in m._parameters.items()]
        self._places = [[(m, k) for m, k, v in named if v is p] for p in self.parameters]
        self.free = free_numbers(self._modules, self.parameters)
        self.held = torch.zeros_like(self.free)
        self.most_dense = MOST_DENSE
        with torch.no_grad():
            self.has_draws = bool(self(self.weight) != self(self.weight, seed=seed + 1))
            if self.has_draws:
                self._elbo = MeanFieldELBO(
                    num_points=NUM_POINTS, max_plate_nesting=self._elbo.max_plate_nesting
                )
        (found,) = torch.autograd.grad(self(self.weight), self.weight, allow_unused=True)
        if found is None or not found.any():
            raise ValueError(
                "The loss does not depend on the weights of the rows. Sample targets inside "
                "`with pyro.plate('data', N, dim=-1)`; a guide that computes something from the "
                "rows needs a method `take_rows(data)` that does so anew, by `data.weight`."
            )

    def __call__(self, weight: Tensor, *, seed: int | None = None) -> Tensor:
        """Compute the loss with these weights of the rows, (T, N)."""
        rows = self.take_rows(weight)
        own = self._seed if seed is None else seed
        with isolated(own), validation(False), batch_of((rows,), None) as args:
            loss = evaluate(self._elbo, self.member.model, self.member.guide, *args).loss
            check_no_bare_parameters(self.member.model, self.member.guide)
        return loss

    def with_gradient(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss, and its gradient by the free numbers, (n,)."""
        loss = self(weight)
        found = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
        return loss.detach(), torch.cat([gradient.flatten() for gradient in found])[self.free]

    def recorded(self, weight: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
        """Return the same as a function of the values of the present parameters."""
        if not can_be_recorded(cast(ELBOModule, self._modules[0])):
            return partial(self.with_gradient, weight)
        with Recorder() as recorder:
            outcome = self.with_gradient(weight)
        return isolated(self._seed)(Replay(recorder.finish(outcome)).__call__)

    def take_rows(self, weight: Tensor) -> TaskData:
        """Tell programs that compute something from the rows, and return these as prepared."""
        rows = self.member.method.prepare(replace(self._data, weight=weight))
        for module in self._modules:
            if hasattr(module, "take_rows"):
                module.take_rows(rows)
        return rows

    def hessian(self, weight: Tensor) -> Hessian:
        """Return gradient and Hessian at the current parameters."""
        return Hessian(self(weight), self.parameters, self.free)

    def curvature(self, weight: Tensor) -> Curvature:
        """Return the Hessian with its inverse."""
        self.free = free_numbers(self._modules, self.parameters) & ~self.held
        near = self._given_sources(weight) if self.free.sum() > self.most_dense else None
        loss, most_dense = self(weight), self.most_dense
        with isolated(self._seed):  # probes of a large one
            return Curvature(loss, self.parameters, self.free, most_dense=most_dense, near=near)

    def _given_sources(self, weight: Tensor) -> Arrowhead | None:
        """Return the Hessian with the sources held, if tasks have few numbers and so have none."""
        num_tasks = len(weight)
        task = self.tasks()
        common, *own = (task + 1).bincount(minlength=num_tasks + 1).tolist()
        if not 0 < max(own) <= MOST_PRODUCTS - common:
            return None
        sharing = [module for module in self._modules if isinstance(module, Sharing)]
        for module in sharing:
            module.detach_sources = True
        try:
            return Arrowhead(self.hessian(weight), task)
        finally:
            for module in sharing:
                module.detach_sources = False

    def tasks(self) -> Tensor:
        """Return the task of each free number, (n,), and -1 for those of all."""
        num_tasks = len(self.weight)
        return torch.cat([_task(parameter, num_tasks) for parameter in self.parameters])[self.free]

    def hold(self, number: Tensor) -> None:
        """Take one of the free numbers as known, from the next curvature on."""
        self.held[self.free.nonzero()[number, 0]] = True

    def choose_anew(self) -> None:
        """Make source weights even and hold nothing, so that another optimum can be found."""
        self.renew()
        self.held = torch.zeros_like(self.held)
        for module in self._modules:
            if isinstance(module, Sources) and module.logits.requires_grad:
                module.logits.data.zero_()

    @property
    def numbers(self) -> Tensor:
        """The free numbers, (n,)."""
        return torch.cat([p.detach().flatten() for p in self.parameters])[self.free]

    @numbers.setter
    def numbers(self, values: Tensor) -> None:
        self.renew()
        self.move_to(values)

    @torch.no_grad()
    def move_to(self, values: Tensor) -> None:
        """Change the free numbers in place, as a recording needs it and no graph does."""
        every = torch.cat([p.flatten() for p in self.parameters])
        every[self.free] = values
        parts = every.split([p.numel() for p in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.copy_(part.view_as(parameter))

    def renew(self) -> None:
        """Install copies of the parameters."""
        self.install([nn.Parameter(p.detach().clone()) for p in self.parameters])

    def install(self, parameters: Sequence[nn.Parameter]) -> None:
        """Put other parameters into the programs: graphs of the loss keep those that they have."""
        for places, parameter in zip(self._places, parameters, strict=True):
            for module, name in places:
                module._parameters[name] = parameter
        self.parameters = list(parameters)


def _task(parameter: Tensor, num_tasks: int) -> Tensor:
    """Return the task of each number of a parameter, as far as its shape tells; else -1."""
    if parameter.ndim == 0 or len(parameter) != num_tasks:
        return torch.full((parameter.numel(),), -1)
    return torch.arange(num_tasks).repeat_interleave(parameter.numel() // num_tasks)
