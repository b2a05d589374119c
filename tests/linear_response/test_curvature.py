"""Hessians that are never made: a matrix near to them, and block conjugate gradients."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from problems import F64

from pyro_vmtl.linear_response.arrowhead import Arrowhead
from pyro_vmtl.linear_response.curvature import Curvature
from pyro_vmtl.linear_response.hessian import SavedNumbers

# Tasks have 3, 1 and 2 numbers, in any order, beside two common ones.
TASK = torch.tensor([1, 0, -1, 2, 0, 2, -1, 0])


def arrowhead_matrix(seed=0):
    gen = torch.Generator().manual_seed(seed)
    root = torch.randn(8, 8, generator=gen, dtype=F64)
    same = (TASK[:, None] == TASK) | (TASK[:, None] < 0) | (TASK < 0)
    matrix = (root @ root.T).where(same, 0.0)
    return matrix + 8 * torch.eye(8, dtype=F64)  # positive definite, whatever was left out


def products_with(matrix):
    return SimpleNamespace(times=lambda v: v @ matrix, gradient=matrix[0])


def test_an_arrowhead_is_inverted_exactly_from_few_products():
    matrix, counted = arrowhead_matrix(), []

    def times(vectors):
        counted.append(len(vectors))
        return vectors @ matrix

    near = Arrowhead(SimpleNamespace(times=times, gradient=matrix[0]), TASK)
    assert sum(counted) == 3 + 2  # numbers of the largest task, and common ones
    vectors = torch.randn(4, 8, generator=torch.Generator().manual_seed(1), dtype=F64)
    # rounding of float64 times a condition number below 100
    torch.testing.assert_close(
        near.solve(vectors), torch.linalg.solve(matrix, vectors.T).T, rtol=1e-12, atol=1e-12
    )
    back = near.gradient_in_units(near.from_units(vectors) @ matrix)
    torch.testing.assert_close(back, vectors, rtol=1e-10, atol=1e-12)


def test_an_arrowhead_that_descends_or_is_flat_is_made_positive():
    matrix = arrowhead_matrix()
    matrix[0] = matrix[:, 0] = 0.0  # flat
    matrix[3, 3] = -20.0  # descends
    near = Arrowhead(products_with(matrix), TASK)
    inverse = near.solve(torch.eye(8, dtype=F64))
    assert torch.isfinite(inverse).all()
    assert torch.linalg.eigvalsh((inverse + inverse.T) / 2).min() > 0


class Marked(torch.autograd.Function):
    """The identity; its part of a graph lives as long as the graph."""

    @staticmethod
    def forward(ctx, x):
        Marked.node = weakref.ref(ctx)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_graphs_whose_numbers_are_counted_are_freed():
    with SavedNumbers() as saved:
        x = torch.full((7,), 0.5, dtype=F64, requires_grad=True)
        (slope,) = torch.autograd.grad(Marked.apply(x).exp().sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, retain_graph=True)
    torch.testing.assert_close(bend, x.detach().exp())
    assert saved.at_once == 64 and Marked.node() is not None
    del slope
    gc.collect()
    assert Marked.node() is None


@pytest.mark.parametrize("with_near", [True, False])
def test_block_conjugate_gradients_solve_as_the_dense_inverse(with_near):
    gen = torch.Generator().manual_seed(2)
    root = torch.randn(8, 8, generator=gen, dtype=F64)
    matrix = arrowhead_matrix() + 0.2 * root @ root.T
    x = torch.randn(8, generator=gen, dtype=F64).requires_grad_()
    loss = 0.5 * x @ matrix @ x
    near = Arrowhead(products_with(matrix), TASK) if with_near else None
    free = torch.ones(8, dtype=torch.bool)
    curvature = Curvature(loss, [x], free, most_dense=0, near=near)
    vectors = torch.randn(4, 8, generator=gen, dtype=F64)
    vectors[1] = 2 * vectors[0]  # the block has not full rank
    vectors[2] = 0.0
    found = curvature.solve(vectors)
    expected = torch.linalg.solve(matrix, vectors.T).T
    # residuals are at most 1e-6 of the vectors, in units in which the matrix is about 1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert curvature.residual < 1e-4
