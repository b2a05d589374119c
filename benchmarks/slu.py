"""Feedback between the intent of a sentence and the slots of its words, on ATIS and SNIPS.

python -m benchmarks slu --data snips --seeds 5
python -m benchmarks slu --data snips --methods static,feedback --epochs 1 --validation

A BiLSTM from scratch, the same for all methods; the epoch is chosen on the valid part. One line of
JSON for each seed and method: F1 of slots, strict accuracy of intents, share of whole sentences,
calibration error of intents; for feedback also with true intents and true slots given, after 3 to
50 iterations, and how many sentences still change after 5.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from benchmarks.datasets.slu import Sentences, read_sentences, slot_f1
from pyro_vmtl import StarCRF, feedback, known_outputs, output_layer
from pyro_vmtl.outputs.feedback import find_feedback

SITES = ("intent", "slots")

METHODS: dict[str, dict[str, Any]] = {
    "static": {"num_iterations": 0},
    "feedback": {"num_iterations": 3},
    "star": {},
    **{f"K={k}": {"num_iterations": k} for k in (1, 2, 5, 10)},
    "soft gates": {"gates": "soft"},
    "no gates": {"gates": "on"},
    "convergence, plain": {"convergence": "plain"},
    "convergence, hinge": {"convergence": "hinge"},
    "symmetric": {"symmetric": True},
}


class Tagger(nn.Module):
    """A BiLSTM over words, with a head for the tag of each and one for the intent."""

    def __init__(self, data: Sentences, size: int = 128, inner: float = 0.3, dropout: float = 0.5, rare: float = 0.5, head: int = 0) -> None:
        super().__init__()
        self.words = nn.Embedding(data.num_words, size, padding_idx=0, sparse=True)
        self.affixes = nn.Embedding(data.num_affixes, 24)
        self.lstm = nn.LSTM(size + 96, size, bidirectional=True, batch_first=True)
        self.inner, self.dropout = nn.Dropout1d(inner), nn.Dropout1d(dropout)
        self.between = nn.Linear(2 * size, head) if head else None
        self.intent, self.slots = (
            nn.Linear(n, len(labels)) for n, labels in ((2 * size, data.intents), (head or 2 * size, data.tags))
        )
        counts = data.words.flatten().bincount(minlength=data.num_words)
        self.register_buffer("rarity", rare / (rare + counts))

    def logits(self, data: Sentences) -> tuple[Tensor, Tensor]:
        """Return the logits of the intent, (N, 1, I), and of the tags, (N, L, C)."""
        words = data.words
        if self.training:  # let what is seen rarely be unknown at times
            words = torch.where(torch.rand(words.shape) < self.rarity[words], 1, words) * data.mask
        features = torch.cat([self.words(words), self.affixes(data.affixes).flatten(2)], -1)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.inner(features.mT).mT, data.mask.sum(1), batch_first=True, enforce_sorted=False
        )
        hidden, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        hidden = self.dropout(hidden.mT).mT
        pooled = hidden.masked_fill(~data.mask[..., None], -1e9).amax(1, keepdim=True)
        if self.between is not None:
            slots = output_layer("slots", self.between(hidden), self.slots, torch.relu)
        else:
            slots = self.slots(hidden)
        return self.intent(pooled), slots

    def forward(self, data: Sentences) -> None:
        """Sample intent and tags."""
        intent, slots = self.logits(data)
        with pyro.plate("data", len(data.words), dim=-2):
            pyro.sample("intent", dist.Categorical(logits=intent), obs=data.intent.clamp(min=0))
            with pyro.plate("words", slots.shape[1], dim=-1), poutine.mask(mask=data.mask):
                pyro.sample("slots", dist.Categorical(logits=slots), obs=data.slots.clamp(min=0))


class Star(Tagger):
    """The same with the exact star of an intent and its tags."""

    def __init__(self, data: Sentences, **settings: Any) -> None:
        super().__init__(data, **settings)
        self.coupling = nn.Parameter(torch.zeros(len(data.tags), len(data.intents)))

    def star(self, data: Sentences) -> StarCRF:
        """Return the distribution of intents and tags."""
        intent, slots = self.logits(data)
        return StarCRF(intent[:, 0], slots, self.coupling, data.mask)


def loss_of(program: nn.Module, batch: Sentences, num_rows: int) -> Tensor:
    """Return the loss of a sentence, on average."""
    if isinstance(program, Star):
        log_prob = program.star(batch).log_prob(batch.intent[:, 0], batch.slots)
        return -log_prob.mean() + program.coupling.square().sum() / 2 / num_rows
    trace = poutine.trace(program).get_trace(batch)
    loss = torch.zeros(())
    for name, node in trace.nodes.items():
        if node["type"] != "sample" or type(node["fn"]).__name__ == "_Subsample":
            continue
        log_prob = node["fn"].log_prob(node["value"])
        if isinstance(node["mask"], Tensor):
            log_prob = torch.where(node["mask"], log_prob, 0.0)
        loss = loss - log_prob.sum() / (num_rows if name == "feedback" else len(batch.words))
    return loss


@torch.no_grad()
def probabilities(program: nn.Module, data: Sentences, num_draws: int) -> tuple[Tensor, Tensor]:
    """Return the probabilities of intents, (N, I), and of tags, (N, L, C)."""
    program.eval()
    if isinstance(program, Star):
        return program.star(data).marginals()
    torch.manual_seed(0)
    totals = [torch.zeros(()), torch.zeros(())]
    for _ in range(num_draws):
        trace = poutine.trace(program).get_trace(data)
        totals = [
            total + trace.nodes[site]["fn"].probs / num_draws
            for total, site in zip(totals, SITES, strict=True)
        ]
    return totals[0][:, 0], totals[1]


@torch.no_grad()
def scores(program: nn.Module, data: Sentences, num_draws: int = 10) -> dict[str, float]:
    """Score the most probable labels; of the star, the most probable sentences."""
    intent, slots = probabilities(program, data, num_draws)
    best, tags = intent.argmax(1), slots.argmax(2)
    if isinstance(program, Star):
        best, tags = program.star(data).mode()
    right = best == data.intent[:, 0]
    all_right = ((tags == data.slots) | ~data.mask).all(1)
    sure, kept = intent.max(1)
    gap = sure - (kept == data.intent[:, 0]).float()
    gaps = torch.zeros(15).index_add(0, (sure * 15).long().clamp(max=14), gap)
    return {
        "slot_f1": slot_f1(tags, data.slots, data.mask, data.tags),
        "intent": right.float().mean().item(),
        "sentence": (right & all_right).float().mean().item(),
        "ece": (gaps.abs().sum() / len(right)).item(),
    }


def train(
    program: nn.Module, parts: dict[str, Sentences], *, epochs: int, batch_size: int, seed: int
) -> tuple[nn.Module, float]:
    """Train, and return the program after the best epoch on the valid part, and the seconds."""
    torch.manual_seed(seed)
    data, valid = parts["train"], parts["valid"]
    if not isinstance(program, Star):
        with torch.no_grad():  # makes the gates, and the reference of all rows
            loss_of(program, data.take(torch.arange(min(len(data.words), 2000))), len(data.words))
    own = [p for name, p in program.named_parameters() if "couplings" in name]
    ids = set(map(id, own))
    rest = [p for p in program.parameters() if id(p) not in ids]
    # gates and weights begin far from where they end
    optimizer = torch.optim.Adam([{"params": rest}, {"params": own, "lr": 1e-2}], lr=1e-3)
    best, kept, begun = -1.0, copy.deepcopy(program.state_dict()), time.perf_counter()
    for _ in range(epochs):
        program.train()
        for rows in torch.randperm(len(data.words)).split(batch_size):
            loss = loss_of(program, data.take(rows), len(data.words))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(program.parameters(), 5.0)
            optimizer.step()
        found = scores(program, valid, num_draws=3)
        if sum(found[m] for m in ("slot_f1", "intent", "sentence")) > best:
            best = sum(found[m] for m in ("slot_f1", "intent", "sentence"))
            kept = copy.deepcopy(program.state_dict())
    program.load_state_dict(kept)
    return program, time.perf_counter() - begun


@torch.no_grad()
def of_feedback(program: nn.Module, data: Sentences) -> dict[str, float]:
    """Score feedback with truths given, and see whether it settles."""
    state, found = find_feedback(program), {}
    known = nn.functional.one_hot(data.intent.clamp(min=0), len(data.intents)).float()
    with known_outputs({"intent": known}):
        found["slot_f1_given_intent"] = scores(program, data)["slot_f1"]
    known = nn.functional.one_hot(data.slots.clamp(min=0), len(data.tags)).float()
    with known_outputs({"slots": known}):
        found["intent_given_slots"] = scores(program, data)["intent"]
    trained, before = state.num_iterations, []
    for k in (3, 5, 6, 50):
        state.num_iterations = k
        before.append(probabilities(program, data, 1))
        if k in (3, 50):
            found |= {f"{m}_at_{k}": v for m, v in scores(program, data).items() if m != "ece"}
    state.num_iterations = trained
    change = torch.maximum(
        (before[2][0] - before[1][0]).abs().amax(1),
        ((before[2][1] - before[1][1]).abs().amax(2) * data.mask).amax(1),
    )
    found["settled"] = (change < 1e-3).float().mean().item()
    found["gates"] = (1 - state.couplings.probabilities()[..., 0]).flatten().tolist()[1:3]
    return found


def main(arguments: Sequence[str]) -> None:
    """Parse the command line, and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks slu", description=__doc__)
    parser.add_argument("--data", choices=("atis", "snips"), default="snips")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", default="static,feedback,star")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rows", type=int, help="Training sentences; all by default.")
    parser.add_argument("--validation", action="store_true", help="Score the valid part.")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-slu.jsonl"))
    args = parser.parse_args(arguments)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    parts = read_sentences(args.data)
    if args.rows is not None:
        parts["train"] = parts["train"].take(torch.arange(args.rows))
    test = parts["valid" if args.validation else "test"]
    for seed in range(args.seeds):
        for method in args.methods.split(","):
            torch.manual_seed(seed)
            program: nn.Module
            if method == "star":
                program = Star(parts["train"])
            else:
                program = Tagger(parts["train"])
                program = feedback(program, sites=SITES, **METHODS[method])
            program, seconds = train(
                program, parts, epochs=args.epochs, batch_size=args.batch_size, seed=seed
            )
            row = {"data": args.data, "seed": seed, "method": method, "epochs": args.epochs}
            row |= {"validation": args.validation, "seconds": round(seconds, 1)}
            row |= scores(program, test)
            if method not in ("star", "static"):
                row |= of_feedback(program, test)
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
