"""Feedback: an effect handler that lets the outputs of a Pyro model feed one another.

The model states each output as if it were alone. :func:`feedback` runs it, takes what it says of
its outputs, iterates, and puts the outputs back with what follows. It knows neither what the model
is, nor what else handles it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, get_args

import pyro
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor, nn

from pyro_vmtl.handlers.program_handler import Program, ProgramWithHandler
from pyro_vmtl.outputs.convergence import Convergence, check_convergence, convergence_loss
from pyro_vmtl.outputs.couplings import Gates
from pyro_vmtl.outputs.messengers import Known, ReplaceOutputs, TakeOutputs, emit, emit_factor
from pyro_vmtl.outputs.state import Feedback

__all__ = ["feedback", "feedback_gates", "find_feedback", "known_outputs"]


class _FeedbackProgram(ProgramWithHandler):
    """A program whose outputs feed one another."""

    state: Feedback

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program, and put its outputs back with feedback."""
        state = self.state
        if state.num_iterations == 0:
            return self.program(*args, **kwargs)
        with self.handler(state.sites) as taken:
            result = self.program(*args, **kwargs)
        found = state.solve(taken)
        outputs = taken.outputs
        fed = {n: o.response.replace(o.site["fn"], found[n][-1]) for n, o in outputs.items()}
        if taken.all_observed:
            for name, output in outputs.items():
                emit(output, fed[name])
        else:  # the program may compute something from values that are drawn from the outputs
            with ReplaceOutputs(taken.others, fed):
                result = self.program(*args, **kwargs)
        if state.convergence is not None:
            for name, output in outputs.items():
                means = [output.response.mean(eta) for eta in found[name]]
                loss = convergence_loss(state.convergence, means)
                emit_factor(output, f"{name}_convergence", -loss)
        assert state.couplings is not None
        if am_i_wrapped():  # by what adds up densities
            pyro.factor("feedback", -state.couplings.kl())
        return result


def feedback(
    model: Program,
    *,
    sites: Iterable[str],
    num_iterations: int | None = 3,
    gates: Gates = "hard",
    convergence: Convergence | None = None,
    symmetric: bool = False,
) -> ProgramWithHandler:
    r"""Let the outputs of a model feed one another.

    What the model says of an output, its logits or mean :math:`a_t(x)`, is where an iteration
    begins that adds what the others say [1]_:

    .. math:: \eta_t^{(k+1)} = a_t(x) + \sum_{s \neq t} z_{st} A_{st}' (p_s^{(k)} - \pi_s)

    with their means :math:`p_s`, such as class probabilities, less those of the training rows, and
    learned weights. A gate :math:`z_{st}` says whether s feeds t: not at all, or its logits, or the
    hidden layer before them where the model computes these by :func:`~pyro_vmtl.output_layer`.
    The weights are bounded so that there is one fixed point, which the iteration comes closer to by
    a factor of at most 0.9, in a weighted norm. Gates and weights have a posterior that is part of
    the program, with its KL as a factor ``feedback``: any guide of the model's own sites will do.

    Parameters
    ----------
    model
        Pyro program in which each output is a site ``Categorical``, ``Bernoulli`` or ``Normal``,
        of any mix, in the same plate over rows. Outputs may be in a further plate inside, as words
        of a sentence are: what they say to an output of the sentence is the average over the words
        that ``poutine.mask`` leaves.
    sites
        Names of the outputs, two or more.
    num_iterations
        K. With 0 it is the model as it was; None for the fixed point, with its implicit gradient.
    gates
        ``"hard"``, drawn as open or closed, the gradient straight through [2]_; ``"soft"``, their
        relaxation between open and closed; ``"on"``, all logits fed, and nothing to choose.
    convergence
        Loss on how the outputs change from one iteration to the next: ``"plain"``, all change;
        ``"hinge"``, change that does not shrink by 0.9.
    symmetric
        Whether s feeds t by the weights by which t feeds s. The iteration is then the parallel
        mean-field update of a conditional random field.

    Returns
    -------
    ProgramWithHandler
        The model with feedback. Its parameters are made when it first runs.

    Raises
    ------
    ValueError
        If a setting is none of those above, or, when it runs, a site is missing or of another kind.

    See Also
    --------
    known_outputs : Tell the model outputs that are known.
    feedback_gates : Probabilities that one output feeds another.

    References
    ----------
    .. [1] Xi, X., Gao, Y., Xu, J., Guo, F. and Jin, T. (2024). Modeling Output-Level Task
       Relatedness in Multi-Task Learning with Feedback Mechanism. arXiv 2404.00885.
    .. [2] Jang, E., Gu, S. and Poole, B. (2017). Categorical Reparameterization with
       Gumbel-Softmax. ICLR.

    Examples
    --------
    >>> import pyro.distributions as dist, torch
    >>> def model(x, rain=None, sales=None):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("rain", dist.Bernoulli(logits=x), obs=rain)
    ...         pyro.sample("sales", dist.Normal(x, 1.0), obs=sales)
    >>> program = feedback(model, sites=["rain", "sales"])
    >>> x = torch.tensor([0.0, 2.0])
    >>> _ = program(x)
    >>> [name for name, _ in program.named_parameters()][:1]
    ['state.couplings.loc']
    """
    sites = (sites,) if isinstance(sites, str) else tuple(sites)
    if len(set(sites)) < max(2, len(sites)):
        raise ValueError(f"sites is {list(sites)}, expected the names of two outputs or more.")
    if gates not in get_args(Gates):
        raise ValueError(f"gates is {gates!r}, expected one of {[*get_args(Gates)]}.")
    if num_iterations is not None and num_iterations < 0:
        raise ValueError(f"num_iterations is {num_iterations}, expected at least 0, or None.")
    check_convergence(convergence, num_iterations)
    state = Feedback(sites, num_iterations, gates, convergence, symmetric)
    return _FeedbackProgram(model, TakeOutputs, state)


def known_outputs(means: Mapping[str, Tensor]) -> AbstractContextManager[Any]:
    r"""Tell models with feedback what is known of outputs, so that it feeds the others.

    Parameters
    ----------
    means
        For each output that is known in some rows, (\*batch, size): 1 for the class and 0 for
        others, (\*batch, 1) with 0 or 1 or a real value; NaN in the rows where it is not known.

    Returns
    -------
    context manager
        To run programs in. The distribution of a known output is still what the model says of it,
        given the others.

    Examples
    --------
    >>> import pyro.distributions as dist, torch
    >>> def model():
    ...     with pyro.plate("data", 2):
    ...         pyro.sample("a", dist.Normal(torch.zeros(2), 1.0))
    ...         pyro.sample("b", dist.Normal(torch.zeros(2), 1.0))
    >>> program = feedback(model, sites=["a", "b"], gates="on")
    >>> _ = program()
    >>> couplings = find_feedback(program).couplings
    >>> with torch.no_grad():
    ...     _ = couplings.loc.fill_(0.5), couplings.raw_scale.fill_(-20.0)
    >>> with known_outputs({"a": torch.tensor([[3.0], [float("nan")]])}):
    ...     pyro.poutine.trace(program).get_trace().nodes["b"]["fn"].loc
    tensor([1.5000, 0.0000], grad_fn=<SelectBackward0>)
    """
    return Known(means)


def find_feedback(program: nn.Module) -> Feedback:
    """Return the settings and parameters of the feedback in a program."""
    found = [module for module in program.modules() if isinstance(module, Feedback)]
    if not found:
        raise ValueError("The program has no feedback, expected one that `feedback` returned.")
    return found[0]


def feedback_gates(program: nn.Module) -> Tensor:
    """Return the posterior probabilities that outputs feed one another.

    Parameters
    ----------
    program
        What :func:`feedback` returned, after it has run, or a module that contains it.

    Returns
    -------
    Tensor
        (T, T, G), from the output of the row to that of the column: no feedback, to its logits or
        mean, and, with hidden layers, to its hidden layer. 0 on the diagonal.

    Examples
    --------
    >>> import pyro.distributions as dist, torch
    >>> def model():
    ...     with pyro.plate("data", 2):
    ...         pyro.sample("a", dist.Normal(torch.zeros(2), 1.0))
    ...         pyro.sample("b", dist.Normal(torch.zeros(2), 1.0))
    >>> program = feedback(model, sites=["a", "b"], gates="on")
    >>> _ = program()
    >>> feedback_gates(program)[0, 1]
    tensor([0., 1.])
    """
    couplings = find_feedback(program).couplings
    if couplings is None:
        raise ValueError("The program has not run yet, so that it has no gates. Fit it first.")
    return couplings.probabilities().detach()
