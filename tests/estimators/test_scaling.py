"""A training step has no loop over tasks, and makes nothing of size (T, T, P) or (N, C, D)."""

import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vmtl import GaussianSumPool, LinearPool, LogarithmicPool, TaskData, share
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.models import LinearClassifier, ZeroMeanNormal

C, F, N = 5, 30, 8


class Watch(TorchDispatchMode):
    """Count operations, and note the largest tensor that any of them makes."""

    def __init__(self):
        super().__init__()
        self.operations = 0
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        tensors = result if isinstance(result, tuple | list) else [result]
        for tensor in tensors:
            # an expanded tensor has a shape but no memory of its own
            if isinstance(tensor, torch.Tensor) and tensor.is_contiguous():
                self.largest = max(self.largest, tensor.numel())
        return result


def step(num_tasks, pool, transfer):
    """Watch a forward and backward pass."""
    torch.manual_seed(0)
    tasks = [t for t in range(num_tasks) for _ in range(N)]
    X, y = torch.randn(len(tasks), F), torch.randint(C, (len(tasks),))
    data = TaskData.classification(X, y, tasks, classes=range(C))
    model = LinearClassifier(ZeroMeanNormal([C, F]))
    guide = MeanFieldNormal({"w": [C, F]}, num_tasks)
    model, guide = share(model, guide, sites=["w"], pool=pool, transfer=transfer)
    guide(data)
    loss_of = TraceMeanField_ELBO()(model, guide)
    with Watch() as watch:
        loss_of(data).backward()
    return watch


@pytest.mark.parametrize("pool", [LinearPool, LogarithmicPool, GaussianSumPool])
@pytest.mark.parametrize("transfer", [None, "source", "dimension"])
def test_operations_and_memory_of_a_step(pool, transfer):
    small, large = step(4, pool, transfer), step(60, pool, transfer)
    assert small.operations == large.operations
    biggest_allowed = max(60 * C * F, 60 * N * F, 60 * N * C, 60 * 61)
    assert large.largest <= biggest_allowed  # (T, T, P) would be 60 times 60 * C * F
