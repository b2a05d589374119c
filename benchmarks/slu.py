"""Feedback between the intent of a sentence and the slots of its words, on ATIS and SNIPS.

python -m benchmarks slu --data snips --seeds 5
python -m benchmarks slu --data snips --methods static,feedback --epochs 1 --validation

A BiLSTM from scratch over words and their first and last letters, the same for all methods. One
line of JSON for each seed and method: F1 of slots, strict accuracy of intents, share of whole
sentences, calibration error of intents, seconds of CPU time; for feedback also with true intents
and true slots given, after 3 to 50 iterations, and how many sentences settle within 5.
"""

from __future__ import annotations

import argparse
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
from pyro_vmtl import StarCRF, feedback, known_outputs
from pyro_vmtl.handlers.schedules import Scheduled
from pyro_vmtl.outputs.feedback import find_feedback

SITES = ("intent", "slots")

ONE_WAY = "one way"
"""Feedback with the gate from the slots to the intent held shut."""

METHODS: dict[str, dict[str, Any]] = {
    "static": {"num_iterations": 0},
    "feedback": {"num_iterations": 3},
    ONE_WAY: {"num_iterations": 3},
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

    def __init__(self, data: Sentences, size: int = 128, affix_size: int = 24) -> None:
        super().__init__()
        self.words = nn.Embedding(data.num_words, size, padding_idx=0, sparse=True)
        self.affixes = nn.Embedding(data.num_affixes, affix_size)
        features = size + data.affixes.shape[2] * affix_size
        self.lstm = nn.LSTM(features, size, bidirectional=True, batch_first=True)
        self.before, self.after = nn.Dropout(0.3), nn.Dropout(0.5)
        self.intent, self.slots = (
            nn.Linear(2 * size, len(labels)) for labels in (data.intents, data.tags)
        )
        counts = data.words.flatten().bincount(minlength=data.num_words)
        self.rarity: Tensor
        self.register_buffer("rarity", 0.5 / (0.5 + counts))

    def logits(self, data: Sentences) -> tuple[Tensor, Tensor]:
        """Return the logits of the intent, (N, 1, I), and of the tags, (N, L, C)."""
        words = data.words
        if self.training:  # the rarer a word, the more often it is as an unknown one
            words = torch.where(torch.rand(words.shape) < self.rarity[words], 1, words) * data.mask
        features = torch.cat([self.words(words), self.affixes(data.affixes).flatten(2)], -1)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.before(features), data.mask.sum(1), batch_first=True, enforce_sorted=False
        )
        hidden, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        hidden = self.after(hidden)
        pooled = hidden.masked_fill(~data.mask[..., None], -1e9).amax(1, keepdim=True)
        return self.intent(pooled), self.slots(hidden)

    def forward(self, data: Sentences) -> None:
        """Sample intent and tags."""
        intent, slots = self.logits(data)
        with pyro.plate("data", len(data.words), dim=-2):
            pyro.sample("intent", dist.Categorical(logits=intent), obs=data.intent.clamp(min=0))
            with pyro.plate("words", slots.shape[1], dim=-1), poutine.mask(mask=data.mask):
                pyro.sample("slots", dist.Categorical(logits=slots), obs=data.slots.clamp(min=0))


class Star(Tagger):
    """The same with the exact star of an intent and its tags."""

    def __init__(self, data: Sentences) -> None:
        super().__init__(data)
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
    totals = [torch.zeros(()), torch.zeros(())]
    with torch.random.fork_rng():  # else training would go on with the draws that it began with
        torch.manual_seed(0)
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


def new_program(method: str, data: Sentences) -> nn.Module:
    """Make the program of a method, with gates and, of some rows, the means as reference."""
    if method == "star":
        return Star(data)
    program = feedback(Tagger(data), sites=SITES, **METHODS[method])
    with torch.no_grad():
        program(data.take(torch.randperm(len(data.words))[:2000]))
    if method == ONE_WAY:
        couplings = program.state.couplings
        shut = torch.tensor([0.0, -1e30]).expand_as(couplings.chosen)
        couplings.choose(shut, [SITES.index("intent")])
    return program


def train(program: nn.Module, data: Sentences, epochs: int, batch_size: int) -> float:
    """Train, with a learning rate that falls to 0, and return the seconds of CPU time."""
    begun, num = time.process_time(), len(data.words)
    words, couplings, rest = [], [], []
    for name, parameter in program.named_parameters():
        kind = words if name.endswith("words.weight") else couplings if "coupling" in name else rest
        kind.append(parameter)
    # gates and weights begin far from where they end
    groups = [{"params": rest}, *([{"params": couplings, "lr": 1e-2}] if couplings else [])]
    optimizers = [
        torch.optim.SparseAdam(words, lr=2e-3),
        torch.optim.Adam(groups, lr=2e-3, fused=True),
    ]
    total = epochs * -(-num // batch_size)
    rates = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda i: min((i + 1) / 200, 1 - i / total))
        for o in optimizers
    ]
    schedule = [m for m in program.modules() if isinstance(m, Scheduled)]
    program.train()
    rows = (each for _ in range(epochs) for each in batches(data, batch_size))
    for step, batch in enumerate(rows):
        for module in schedule:
            module.at_step(step)
        loss = loss_of(program, data.take(batch), num)
        program.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(rest, 5.0)
        for each in (*optimizers, *rates):
            each.step()
    return time.process_time() - begun


def batches(data: Sentences, batch_size: int) -> list[Tensor]:
    """Split the sentences into batches of about the same length, in random order."""
    lengths = data.mask.sum(1)
    found = (lengths + 2 * torch.rand(len(lengths))).argsort().split(batch_size)
    return [found[i] for i in torch.randperm(len(found))]


@torch.no_grad()
def of_feedback(program: nn.Module, data: Sentences) -> dict[str, float]:
    """Score feedback with truths given, and see whether it settles."""
    state, found = find_feedback(program), {}
    with known_outputs({"intent": _as_means(data.intent, len(data.intents))}):
        found["slot_f1_given_intent"] = scores(program, data)["slot_f1"]
    with known_outputs({"slots": _as_means(data.slots, len(data.tags))}):
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


def _as_means(labels: Tensor, size: int) -> Tensor:
    """Return labels as probabilities, NaN where training does not have them."""
    means = nn.functional.one_hot(labels.clamp(min=0), size).float()
    return means.where(labels[..., None] >= 0, torch.nan)


def main(arguments: Sequence[str]) -> None:
    """Parse the command line, and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks slu", description=__doc__)
    parser.add_argument("--data", choices=("atis", "snips"), default="snips")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--methods", default="static,feedback,star")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=64)
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
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for method in args.methods.split(","):
            torch.manual_seed(seed)
            program = new_program(method, parts["train"])
            with pyro.validation_enabled(False):
                seconds = train(program, parts["train"], args.epochs, args.batch_size)
            row = {"data": args.data, "seed": seed, "method": method, "epochs": args.epochs}
            row |= {"validation": args.validation, "seconds": round(seconds, 1)}
            row |= scores(program, test) | {"valid": scores(program, parts["valid"])}
            if method not in ("star", "static"):
                row |= of_feedback(program, test)
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
