"""The star against the enumeration of all joint labels."""

import itertools

import pytest
import torch

from pyro_vmtl.outputs.star_crf import StarCRF

CENTRE, L, C = 3, 4, 2


@pytest.fixture
def star():
    g = torch.Generator().manual_seed(0)
    centre, leaves, coupling = (
        torch.randn(*shape, generator=g, dtype=torch.float64)
        for shape in ((5, CENTRE), (5, L, C), (C, CENTRE))
    )
    mask = torch.arange(L) < torch.tensor([4, 1, 3, 2, 4])[:, None]
    return StarCRF(centre, leaves, coupling, mask)


def enumerated(star, row):
    """All joint labels of a row and their probabilities, from the definition."""
    count = int(star.mask[row].sum())
    labels = [*itertools.product(range(CENTRE), *[range(C)] * count)]
    scores = [
        star.centre[row, i]
        + sum(star.leaves[row, leaf, c] + star.coupling[c, i] for leaf, c in enumerate(words))
        for i, *words in labels
    ]
    return labels, torch.stack(scores).softmax(0)


def test_the_likelihood_is_that_of_all_joint_labels(star):
    for row in range(5):
        for label, p in zip(*enumerated(star, row), strict=True):
            words = torch.zeros(5, L, dtype=torch.int64)
            words[row, : len(label) - 1] = torch.tensor(label[1:])
            centre = torch.full((5,), label[0])
            assert star.log_prob(centre, words)[row].exp() == pytest.approx(float(p), rel=1e-12)


def test_the_marginals_are_sums(star):
    centre, leaves = star.marginals()
    for row in range(5):
        labels, p = enumerated(star, row)
        for i in range(CENTRE):
            expected = sum(q for label, q in zip(labels, p, strict=True) if label[0] == i)
            assert centre[row, i] == pytest.approx(float(expected), rel=1e-12)
        for leaf in range(int(star.mask[row].sum())):
            for c in range(C):
                expected = sum(
                    q for label, q in zip(labels, p, strict=True) if label[1 + leaf] == c
                )
                assert leaves[row, leaf, c] == pytest.approx(float(expected), rel=1e-12)


def test_the_mode_is_the_most_probable(star):
    centre, leaves = star.mode()
    for row in range(5):
        labels, p = enumerated(star, row)
        best = labels[int(p.argmax())]
        found = (int(centre[row]), *leaves[row, : len(best) - 1].tolist())
        assert found == best
