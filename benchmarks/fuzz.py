"""Fuzz the command line with mutated tables: no file may cause a traceback.

    python -m benchmarks.fuzz --minutes 5

A valid table is mutated at random: bytes, entries, lines and columns. It is fitted for a few steps,
and another mutation of it is predicted and evaluated. Each command must exit with 0 or 2 and leave
no partial output.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from typer.testing import CliRunner

from pyro_vmtl.cli.main import app
from pyro_vmtl.methods import presets

ENTRIES = [
    *("", " ", "NA", "nan", "inf", "-inf", "0", "-1", "1e400", "1e38", "1e12", "007", "1,5"),
    *("x" * 500, "é", "\ufeff", "\x00", '"', "'", "=1+1", "true", "2020-01-01", "0x10", "１２"),
]
TARGETS = ("score", "class", "count")


def table(chance: random.Random) -> bytes:
    """Generate a valid table as CSV."""
    rng = np.random.RandomState(chance.randrange(2**31))
    rows = chance.randint(8, 60)
    content = pd.DataFrame(
        {
            "task": rng.choice(["a", "b", "c", "07"], rows),
            "age": rng.uniform(0, 100, rows).round(2),
            "size": rng.normal(0, 1e6, rows),
            "sex": rng.choice(["f", "m", ""], rows),
            "score": rng.normal(size=rows).round(3),
            "class": rng.choice(["x", "y", "z"], rows),
            "count": rng.poisson(3, rows),
        }
    )
    return content.to_csv(index=False).encode()


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change a file in some places."""
    for _ in range(chance.choice([0, 1, 1, 2, 3, 10])):
        kind = chance.randrange(6)
        if kind == 0:  # a byte
            place = chance.randrange(len(data) + 1)
            data = (
                data[:place] + bytes([chance.randrange(256)]) + data[place + chance.randrange(2) :]
            )
        elif kind == 1:  # an entry
            lines = data.split(b"\n")
            at = chance.randrange(len(lines))
            entries = lines[at].split(b",")
            entries[chance.randrange(len(entries))] = chance.choice(ENTRIES).encode()
            lines[at] = b",".join(entries)
            data = b"\n".join(lines)
        elif kind == 2:  # a line less, or twice
            lines = data.split(b"\n")
            at = chance.randrange(len(lines))
            lines[at : at + 1] = [lines[at]] * chance.choice([0, 2])
            data = b"\n".join(lines)
        elif kind == 3:  # a column with one value
            rows = [line.split(b",") for line in data.split(b"\n")]
            column, entry = chance.randrange(7), chance.choice(ENTRIES).encode()
            for row in rows[1:]:
                row[column : column + 1] = [entry]
            data = b"\n".join(b",".join(row) for row in rows)
        elif kind == 4:  # cut off
            data = data[: chance.randrange(len(data) + 1)]
        else:  # another separator
            data = data.replace(b",", chance.choice([b";", b"\t", b"|", b", "]))
    return data


def run_command(arguments: list[str], output: Path | None = None) -> int:
    """Run a command and return its exit code; exit with a message if it misbehaved."""
    outcome = CliRunner().invoke(app, arguments)
    problem = None
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        problem = "".join(traceback.format_exception(outcome.exception))
    elif outcome.exit_code not in (0, 2) or "Traceback" in outcome.output:
        problem = f"exit code {outcome.exit_code}:\n{outcome.output}"
    elif output is not None and output.exists() != (outcome.exit_code == 0):
        problem = f"exit code {outcome.exit_code}, and {output.name} exists: {output.exists()}"
    if problem is not None:
        raise SystemExit(f"{' '.join(arguments)}\n{problem}")
    return outcome.exit_code


def main() -> None:
    """Run until the time is up, and count the exit codes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    presets.SHARED = replace(presets.SHARED, fitting={"num_steps": 12})
    chance, codes = random.Random(chosen.seed), Counter()
    end = time.monotonic() + 60 * chosen.minutes
    with tempfile.TemporaryDirectory() as scratch:
        folder, number = Path(scratch), 0
        while time.monotonic() < end:
            number += 1
            good = table(chance)
            for name in ("fit", "new"):
                (folder / f"{name}.csv").write_bytes(mutate(good, chance))
            out, predicted = folder / f"run-{number}", folder / f"predicted-{number}.csv"
            target = chance.choice(TARGETS)
            arguments = ["fit", str(folder / "fit.csv"), "--target", target, "--task", "task"]
            arguments += ["--method", "shared", "--out", str(out)]
            arguments += ["--holdout", chance.choice(["0", "0.3"])]
            if chance.random() < 0.3:
                arguments += ["--kind", chance.choice(["classification", "regression", "counts"])]
            code = run_command(arguments, out)
            codes["fit", code] += 1
            if code:
                continue
            new = str(folder / "new.csv")
            asked = ["predict", str(out), new, "--out", str(predicted)]
            codes["predict", run_command(asked, predicted)] += 1
            codes["evaluate", run_command(["evaluate", str(out), new])] += 1
            codes["report", run_command(["report", str(out)])] += 1
    for (command, code), count in sorted(codes.items()):
        print(f"{command}: {count} ended with {code}")


if __name__ == "__main__":
    main()
