"""Posterior means and source weights of a fit, with gradients: quantities that rows influence."""

from __future__ import annotations

from pyro import poutine
from torch import Tensor

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import evaluating, isolated, validation
from pyro_vmtl.handlers.tracing import sample_sites, trace_guide_and_model
from pyro_vmtl.inference.step import batch_of
from pyro_vmtl.linear_response.normals import AtMeans
from pyro_vmtl.linear_response.response import as_double
from pyro_vmtl.methods.fitted import Fitted

__all__ = ["posterior_means"]


def posterior_means(fit: Fitted, data: TaskData) -> dict[str, Tensor]:
    r"""Return the posterior means of the sites of a fit, with gradients in what was learned.

    Parameters
    ----------
    fit
        Fit of one member, as :func:`~pyro_vmtl.influence` passes it to a quantity.
    data
        The rows of the fit.

    Returns
    -------
    dict
        Means by site, in the shape of the guide's draws: of positive sites those of the logarithm.
        ``{site}_sources`` are the weights of the sources at the posterior's logits, (T, 1, K): the
        other tasks in order, and the base last.

    Raises
    ------
    ValueError
        If the fit has several members.

    Examples
    --------
    >>> from pyro_vmtl import influence
    >>> from pyro_vmtl.methods.presets import presets
    >>> X = [[-1.0], [0.0], [1.0]] * 8
    >>> data = TaskData.regression(X, [2.0 * x for (x,) in X], list("abcd" * 6))
    >>> fitted = presets("regression")["mixed-model"].few_features.fit(data)
    >>> found = influence(fitted, data, of=lambda fit: posterior_means(fit, data)["w"][0, 0, 0])
    >>> found["influence"].dims
    ('row',)
    """
    member = fit.member
    rows = member.method.prepare(as_double(data))
    with isolated(0), validation(False), evaluating(member.model, member.guide):
        traces = trace_guide_and_model(member.model, member.guide, rows)
        supports = {name: node["fn"].support for name, node in sample_sites(traces.model).items()}
        handler = AtMeans(supports)
        with handler, batch_of((rows,), None) as args:
            guide = sample_sites(poutine.trace(member.guide).get_trace(*args))
    means = dict(handler.means)
    for name, node in guide.items():
        logits = getattr(node["fn"], "logits", None)
        if name.endswith("_sources"):
            means[name] = node["value"].exp() if logits is None else logits.softmax(-1)
    return means
