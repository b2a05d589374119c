"""Handlers of one run: take the outputs out of a program, and put them back with feedback."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import effectful
from torch import Tensor

from pyro_vmtl.handlers.program_handler import SiteMessenger
from pyro_vmtl.outputs.responses import Response, response_of

__all__ = ["Known", "Output", "ReplaceOutputs", "TakeOutputs", "emit", "emit_factor", "known_means"]


@dataclass(frozen=True, eq=False)
class Output:
    """An output as the model states it: its site, before any handler outside the model sees it."""

    site: Any
    response: Response
    eta: Tensor  # (*batch, size)
    known: Tensor | None = None

    @property
    def name(self) -> str:
        """Name of the site."""
        return self.site["name"]

    @property
    def num_plates(self) -> int:
        """Number of dimensions of the plates in the model."""
        return max((-f.dim for f in self.site["cond_indep_stack"] if f.vectorized), default=0)


class TakeOutputs(SiteMessenger):
    """Take the outputs of a program from its run, and note the draws of all other sites."""

    def __init__(self, sites: tuple[str, ...]) -> None:
        super().__init__(sites)
        self.sites = sites
        self.outputs: dict[str, Output] = {}
        self.layers: dict[str, tuple[Any, ...]] = {}
        self.others: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        name = msg["name"]
        if name in self.sites:
            response = response_of(msg["fn"], name)
            eta = response.eta(msg["fn"])
            self.outputs[name] = Output(dict(msg), response, eta, known_means(name))
            msg["stop"] = True  # handlers outside see it when it is put back

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] not in self.sites:
            self.others[msg["name"]] = msg

    def _pyro_post_output_layer(self, msg: Any) -> None:
        self.layers[msg["args"][0]] = msg["args"]

    @property
    def all_observed(self) -> bool:
        """Whether the program cannot have used a value that feedback changes."""
        return all(output.site["is_observed"] for output in self.outputs.values())


class ReplaceOutputs(Messenger):
    """Run a program again on the same draws, with other distributions of its outputs."""

    def __init__(self, others: Mapping[str, Any], fed: Mapping[str, Any]) -> None:
        super().__init__()
        self.others = others
        self.fed = fed

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self.fed:
            msg["fn"] = self.fed[name]
            return
        before = self.others[name]
        msg["value"], msg["infer"] = before["value"], before["infer"]
        msg["done"] = msg["stop"] = True


class _InPlaceOf(Messenger):
    """Let a site have the plates, scale and mask of another."""

    def __init__(self, site: Any) -> None:
        super().__init__()
        self.site = site

    def _pyro_sample(self, msg: Any) -> None:
        for key in ("cond_indep_stack", "scale", "mask"):
            msg[key] = self.site[key]


def emit(output: Output, fn: Any) -> None:
    """Put an observed output back, with another distribution."""
    site = output.site
    with _InPlaceOf(site):
        pyro.sample(site["name"], fn, obs=site["value"], infer=site["infer"])


def emit_factor(output: Output, name: str, values: Tensor) -> None:
    """Add a factor, in the plates of an output."""
    with _InPlaceOf(output.site):
        pyro.factor(name, values)


@effectful(type="known_means")
def known_means(site: str) -> Tensor | None:
    """Return what is known of an output, by a handler outside."""
    return None


class Known(Messenger):
    """Tell programs with feedback the means of some outputs, NaN where they are not known."""

    def __init__(self, means: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.means = means

    def _pyro_known_means(self, msg: Any) -> None:
        (site,) = msg["args"]
        if site in self.means:
            msg["value"], msg["done"] = self.means[site], True
