"""Slots as conlleval counts them, and what the tagger's methods have in common."""

import pytest
import torch

from benchmarks.datasets.slu import Sentences, slot_f1
from benchmarks.slu import METHODS, SITES, Star, Tagger, loss_of, of_feedback, scores
from pyro_vmtl import feedback

TAGS = ("O", "B-city", "I-city", "B-day")


def rows(*texts):
    return torch.tensor([[TAGS.index(tag) for tag in text.split()] for text in texts])


def test_a_slot_is_right_if_all_of_it_is():
    truth = rows("O B-city I-city O B-day", "B-city B-city O O O")
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    assert slot_f1(truth, truth, mask, TAGS) == 1
    # of 4 slots one is cut short, one found as another kind, and two are right
    found = rows("O B-city O O B-day", "B-city B-day B-day B-day O")
    assert slot_f1(found, truth, mask, TAGS) == pytest.approx(2 * 2 / (4 + 4))
    # an I after another kind, or after O, begins a slot
    assert slot_f1(rows("O I-city I-city O B-day"), truth[:1], mask[:1], TAGS) == 1


def sentences():
    g = torch.Generator().manual_seed(0)
    mask = torch.arange(5) < torch.tensor([5, 2, 3, 4])[:, None]
    words = torch.randint(2, 9, (4, 5), generator=g) * mask
    slots = torch.randint(4, (4, 5), generator=g) * mask
    intent = torch.randint(3, (4, 1), generator=g)
    affixes = torch.randint(6, (4, 5, 4), generator=g) * mask[..., None]
    return Sentences(words, intent, slots, mask, ("a", "b", "c"), TAGS, 9, affixes, 6)


@pytest.mark.parametrize("method", [*METHODS])
def test_every_method_has_the_loss_of_the_static_one_without_weights(method):
    """But for the KL of gates and weights, at the start."""
    data = sentences()
    torch.manual_seed(0)
    plain = feedback(Tagger(data), sites=SITES, num_iterations=0).eval()
    torch.manual_seed(0)
    program = (
        Star(data) if method == "star" else feedback(Tagger(data), sites=SITES, **METHODS[method])
    )
    program.eval()
    found = loss_of(program, data, 10**9)
    if method != "star":
        couplings = program.state.couplings
        if couplings is not None:
            with torch.no_grad():
                couplings.raw_scale.fill_(-40.0)
            found = loss_of(program, data, 10**9)
    assert float(found.detach()) == pytest.approx(float(loss_of(plain, data, 10**9)), abs=1e-4)
    assert set(scores(program, data, 2)) == {"slot_f1", "intent", "sentence", "ece"}
    if method == "feedback":
        assert of_feedback(program, data)["settled"] == 1
