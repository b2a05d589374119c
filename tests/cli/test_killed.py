"""A fit that is killed, again and again, ends in the numbers of one that was left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

KILLS = int(os.environ.get("KILLS", "6"))
"""Six are quick; try 20 and more after a change of checkpoints."""

# Imports take seconds, so they are done once: each fit is a fork of this process. It lets one end,
# then kills others at random moments, from before the first checkpoint to the writing of the run.
KILLER = """
import os, random, signal, sys, time
from dataclasses import replace
import torch
import torch._dynamo  # which the first optimizer imports
from pyro_vmtl import Stack
from pyro_vmtl.inference import checkpoint
from pyro_vmtl.methods import by_features, presets
from pyro_vmtl.cli import fit_command, run_directory  # all that a fit needs
from pyro_vmtl.cli.main import app

torch.set_num_threads(1)
checkpoint.EVERY = 0.05
members = {  # few steps, to be quick here, some of them recorded ones
    name: replace(member, fitting={**member.fitting, "num_steps": 60})
    for name, member in presets.DEFAULT.members.items()
}
presets.DEFAULT = Stack(members, num_folds=2)
by_features.has_few_features = lambda data: False
run_directory.write_run_report = lambda *args, **settings: None  # takes as long as the rest
whole, killed, kills, arguments = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]


def start(out):
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        app(["fit", *arguments, "--out", out, "--resume"], standalone_mode=True)
        os._exit(0)
    return child


def finish(child):
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        sys.exit(code)


began = time.monotonic()
finish(start(whole))
seconds = time.monotonic() - began
chance = random.Random(0)
for kill in range(kills):
    child = start(killed)
    time.sleep(chance.uniform(0.05, 1.6) * seconds / kills)
    if os.waitpid(child, os.WNOHANG) != (0, 0):
        if kill < kills / 2:
            sys.exit(f"done after {kill} kills: the fit is too short")
        break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
finish(start(killed))
"""


def numbers(run):
    """All tensors of a run, and its scores."""
    with safe_open(run / "estimator" / "weights.safetensors", framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metrics = json.loads((run / "metrics.json").read_text())
    return tensors, metrics["all"], (run / "holdout.csv").read_bytes()


@pytest.mark.slow
def test_kills_lose_nothing(tmp_path):
    rng = np.random.RandomState(0)
    table = pd.DataFrame(rng.normal(size=(80, 3)), columns=["a", "b", "c"])
    table["task"] = np.arange(80) % 4
    table["y"] = np.where(
        table["a"] * (table["task"] - 1.5) + rng.normal(size=80) > 0, "up", "down"
    )
    table.to_csv(tmp_path / "table.csv", index=False)
    options = ["--target", "y", "--task", "task", "--holdout", "0.3"]
    arguments = [str(tmp_path / "table.csv"), *options]
    runs = [tmp_path / "whole", tmp_path / "killed"]
    command = [sys.executable, "-c", KILLER, *map(str, runs), str(KILLS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    (whole, *scores), (killed, *other) = map(numbers, runs)
    assert whole.keys() == killed.keys() and len(whole) > 50
    for name, values in whole.items():
        assert np.array_equal(values, killed[name]), name
    assert scores == other
    assert not Path(f"{tmp_path / 'killed'}.checkpoints").exists()
