"""A fit that is killed, again and again, ends in the numbers of one that was left alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

# Imports take seconds, so they are done once: each fit is a fork of this process. It kills them at
# random moments, from before the first checkpoint to the writing of the run, then lets one end.
KILLER = """
import os, random, signal, sys, time
from dataclasses import replace
import torch
from pyro_vmtl import Stack
from pyro_vmtl.inference import checkpoint
from pyro_vmtl.methods import presets
from pyro_vmtl.cli import fit_command  # all that a fit needs
from pyro_vmtl.cli.main import app

torch.set_num_threads(1)
checkpoint.EVERY = 0.05
members = {  # few steps, to be quick here, some of them recorded ones
    name: replace(member, fitting={**member.fitting, "num_steps": 80})
    for name, member in presets.DEFAULT.members.items()
}
presets.DEFAULT = Stack(members, num_folds=2)
kills, out, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
chance, left, waits = random.Random(0), kills, []
while True:
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        app(["fit", *arguments, "--out", out, "--resume"], standalone_mode=True)
        os._exit(0)
    if left:
        wait = chance.uniform(0.02, 0.35)
        time.sleep(wait)
        if os.waitpid(child, os.WNOHANG) == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            left -= 1
            continue
        sys.exit(f"done after {kills - left} kills: the fit is too short")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def numbers(run):
    """All tensors of a run, and its scores."""
    with safe_open(run / "estimator" / "weights.safetensors", framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metrics = json.loads((run / "metrics.json").read_text())
    return tensors, metrics["all"], (run / "holdout.csv").read_bytes()


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path):
    rng = np.random.RandomState(0)
    table = pd.DataFrame(rng.normal(size=(80, 3)), columns=["a", "b", "c"])
    table["task"] = np.arange(80) % 4
    table["y"] = np.where(
        table["a"] * (table["task"] - 1.5) + rng.normal(size=80) > 0, "up", "down"
    )
    table.to_csv(tmp_path / "table.csv", index=False)
    options = ["--target", "y", "--task", "task", "--holdout", "0.3"]
    arguments = [str(tmp_path / "table.csv"), *options]
    runs = {}
    for name, kills in (("whole", 0), ("killed", 20)):
        out = tmp_path / name
        command = [sys.executable, "-c", KILLER, str(kills), str(out), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        runs[name] = numbers(out)
    (whole, *scores), (killed, *other) = runs["whole"], runs["killed"]
    assert whole.keys() == killed.keys() and len(whole) > 50
    for name, values in whole.items():
        assert np.array_equal(values, killed[name]), name
    assert scores == other
    assert not Path(f"{tmp_path / 'killed'}.checkpoints").exists()
