"""Slots as conlleval counts them, and what the tagger's methods have in common."""

import pytest
import torch

from benchmarks.datasets.slu import Sentences, _affixes, slot_f1
from benchmarks.slu import (
    METHODS,
    ONE_WAY,
    SITES,
    Star,
    Tagger,
    batches,
    loss_of,
    new_program,
    of_feedback,
    probabilities,
    scores,
    train,
)
from pyro_vmtl import feedback, feedback_gates

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


def test_affixes_are_those_of_the_word_with_its_digits_as_one():
    assert _affixes("playlist") == ["pl-", "pla-", "-st", "-ist"]
    assert _affixes("1130") == _affixes("2259") == ["00-", "000-", "-00", "-000"]
    assert _affixes("a") == ["a-", "a-", "-a", "-a"]


def of_words(num=400):
    """Sentences of 2 to 9 words, each of which decides its tag, the first the intent."""
    g = torch.Generator().manual_seed(1)
    mask = torch.arange(9) < torch.randint(2, 10, (num, 1), generator=g)
    words = torch.randint(2, 14, (num, 9), generator=g) * mask
    affixes = torch.zeros(num, 9, 4, dtype=torch.int64)
    intents, slots = words[:, :1] % 3, words % 4 * mask
    return Sentences(words, intents, slots, mask, ("a", "b", "c"), TAGS, 14, affixes, 1)


def test_batches_have_each_sentence_once_and_little_padding():
    data = of_words()
    torch.manual_seed(0)
    found = batches(data, 32)
    assert torch.cat(found).sort().values.tolist() == list(range(400))
    padding = sum(int((~data.take(rows).mask).sum()) for rows in found)
    in_order = sum(int((~data.take(rows).mask).sum()) for rows in torch.arange(400).split(32))
    assert padding < in_order / 2
    longest = [int(data.mask[rows].sum(1).max()) for rows in found]
    assert longest != sorted(longest)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["feedback", "star"])
def test_training_finds_words_that_decide(method):
    data = of_words()
    torch.manual_seed(0)
    program = Star(data) if method == "star" else feedback(Tagger(data), sites=SITES)
    before = scores(program, data, 1)["sentence"]
    assert train(program, data, epochs=15, batch_size=32) > 0
    assert before < 0.1 < 0.9 < scores(program, data, 1)["sentence"]


def test_scores_leave_the_draws_of_training_as_they_are():
    program = feedback(Tagger(sentences()), sites=SITES)
    scores(program, sentences(), 1)
    before = torch.get_rng_state()
    scores(program, sentences(), 2)
    assert torch.equal(before, torch.get_rng_state())


def test_one_way_no_slot_feeds_the_intent():
    torch.manual_seed(0)
    data = sentences()
    program = new_program(ONE_WAY, data).eval()
    assert feedback_gates(program)[1, 0].tolist() == [1, 0]
    assert feedback_gates(program)[0, 1, 1] > 0.9
    with torch.no_grad():
        program.state.couplings.loc.normal_(0, 3)
    intent, slots = program.program.logits(data)
    found = probabilities(program, data, 1)
    assert torch.allclose(found[0], intent[:, 0].softmax(-1), atol=1e-6)
    assert not torch.allclose(found[1], slots.softmax(-1), atol=1e-2)
