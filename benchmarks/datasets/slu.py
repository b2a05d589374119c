"""Sentences with an intent and a slot tag for each word: ATIS and SNIPS."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.datasets.files import data_file

__all__ = ["PARTS", "Sentences", "read_sentences", "slot_f1"]

PARTS = ("train", "valid", "test")

PADDING, UNKNOWN = 0, 1


@dataclass(frozen=True, eq=False)
class Sentences:
    """N sentences of at most L words; padded with word 0, and tag 0."""

    words: Tensor  # (N, L)
    intent: Tensor  # (N, 1); -1 where the training rows do not have it
    slots: Tensor  # (N, L); -1 likewise
    mask: Tensor  # (N, L)
    intents: tuple[str, ...]
    tags: tuple[str, ...]
    num_words: int
    affixes: Tensor  # (N, L, 4), first and last two and three letters; 0 where training has none
    num_affixes: int

    def take(self, rows: Tensor) -> Sentences:
        """Select sentences, and cut them to the longest."""
        longest = int(self.mask[rows].sum(1).max())
        cut = ("words", "slots", "mask", "affixes")
        own = {name: getattr(self, name)[rows, :longest] for name in cut}
        return replace(self, **own, intent=self.intent[rows])


def read_sentences(name: str) -> dict[str, Sentences]:
    """Read the parts of ``"atis"`` or ``"snips"``; words and labels are those of training."""
    texts = {}
    for part in PARTS:
        files = [data_file(f"slu/{name}/{part}/{file}") for file in ("seq.in", "seq.out", "label")]
        lines = [file.read_text(encoding="utf-8").splitlines() for file in files]
        texts[part] = [
            (words.split(), tags.split(), intent.strip())
            for words, tags, intent in zip(*lines, strict=True)
        ]
    train = texts["train"]
    known = sorted({word for words, *_ in train for word in words})
    vocabulary = {word: place for place, word in enumerate(known, 2)}
    seen = sorted({affix for word in known for affix in _affixes(word)})
    endings = {affix: place for place, affix in enumerate(seen, 1)}
    tags = ("O", *sorted({tag for _, tags, _ in train for tag in tags} - {"O"}))
    intents = tuple(sorted({intent for *_, intent in train}))
    places = {tag: i for i, tag in enumerate(tags)}
    found = {}
    for part, rows in texts.items():
        shape = len(rows), max(len(words) for words, *_ in rows)
        words, slots = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        mask = torch.zeros(shape, dtype=torch.bool)
        affixes = torch.zeros((*shape, 4), dtype=torch.int64)
        intent = torch.tensor([[intents.index(i) if i in intents else -1] for *_, i in rows])
        for n, (own, own_tags, _) in enumerate(rows):
            words[n, : len(own)] = torch.tensor([vocabulary.get(w, UNKNOWN) for w in own])
            affixes[n, : len(own)] = torch.tensor(
                [[endings.get(affix, 0) for affix in _affixes(word)] for word in own]
            )
            slots[n, : len(own)] = torch.tensor([places.get(tag, -1) for tag in own_tags])
            mask[n, : len(own)] = True
        found[part] = Sentences(
            words, intent, slots, mask, intents, tags, len(vocabulary) + 2, affixes, len(seen) + 1
        )
    return found


def _affixes(word: str) -> list[str]:
    """Return the first and last two and three letters of a word; all digits are as one."""
    word = "".join("0" if letter.isdigit() else letter for letter in word)
    return [f"{word[:2]}-", f"{word[:3]}-", f"-{word[-2:]}", f"-{word[-3:]}"]


def slot_f1(found: Tensor, truth: Tensor, mask: Tensor, tags: tuple[str, ...]) -> float:
    """Return the F1 of whole slots, as ``conlleval`` counts them.

    Tags -1, which training does not have, are slots that nothing is right for.
    """
    right = total = claimed = 0
    for row, true_row, length in zip(found.tolist(), truth.tolist(), mask.sum(1), strict=True):
        one, other = (_spans(r[: int(length)], tags) for r in (row, true_row))
        right += len(one & other)
        claimed += len(one)
        total += len(other)
    return 2 * right / max(claimed + total, 1)


def _spans(row: list[int], tags: tuple[str, ...]) -> set[tuple[str, int, int]]:
    spans, begun, kind = set(), 0, ""
    for place, tag in enumerate([*(tags[t] if t >= 0 else "B-(unknown)" for t in row), "O"]):
        head, _, name = tag.partition("-")
        if kind and (head in ("B", "O") or name != kind):
            spans.add((kind, begun, place))
            kind = ""
        if head == "B" or (head == "I" and not kind):
            begun, kind = place, name
    return spans
