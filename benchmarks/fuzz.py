"""Fuzz the command line with mutated tables and mutated run directories.

    python -m benchmarks.fuzz --minutes 10

A valid table is mutated at random: bytes, entries, lines, columns and their names. It is fitted for
a few steps, and another mutation of it is predicted and evaluated. In between, runs are mutated as
a stranger would: every file, by bits and by structure, with the right checksums.

Whatever the input, each command must exit with 0 or 2, without a traceback and without partial
output; it must not touch a file outside its --out, and memory stays below 2 GiB.
"""

from __future__ import annotations

import argparse
import gzip
import random
import resource
import shutil
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from typer.testing import CliRunner

from benchmarks.fuzz_runs import copy_run, mutate_run
from pyro_vmtl.analysis import report as report_module
from pyro_vmtl.cli import run_directory
from pyro_vmtl.cli.main import app
from pyro_vmtl.estimators import base

MAX_MEMORY = 2 * 1024**3
SECRET = "what stands in a file elsewhere"

ENTRIES = [
    *("", " ", "NA", "nan", "inf", "-inf", "0", "-1", "1e400", "1e38", "1e12", "007", "1,5"),
    *("x" * 500, "é", "\ufeff", "\x00", '"', "'", "=1+1", "true", "2020-01-01", "0x10", "１２"),
]
NAMES = [
    *("mean", "std", "row", "5%", "all rows", "base", "[/x]", "$\\frac{", "😀", "=1+1", "None"),
    *("\u202e", "\x1b[2J", "</script>", "'\"`$(id)", "../", "é", "e\u0301", "intercept", "x=y"),
]
LETTERS = "aé漢😀\u200f\u0301 _-.[]{}$%&<>'\\|/"
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
    if chance.random() < 0.5:
        odd = [chance.choice(NAMES) + "".join(chance.choices(LETTERS, k=3)) for _ in range(4)]
        content["task"] = content["task"].replace(
            dict(zip(["a", "b", "c", "07"], odd, strict=True))
        )
        content = content.rename(columns={"age": odd[0], "size": chance.choice(NAMES)})
    return content.to_csv(index=False).encode(errors="replace")


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


def bomb(folder: Path, chance: random.Random) -> Path:
    """Write a small table that unpacks to more than the memory."""
    kind = chance.randrange(4)
    if kind == 0:
        path = folder / "bomb.csv.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(b"task,score,age\n")
            for _ in range(1100):
                file.write(b"1,2,3\n" * 170_000)
    elif kind == 1:
        path = folder / "bomb.parquet"
        column = pa.array([0.0]).take(pa.array(np.zeros(60_000_000, dtype=np.int32)))
        pq.write_table(pa.table({"task": column, "score": column}), path)
    elif kind == 2:
        path = folder / "bomb.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("X.npy", bytes(1_100_000_000))
    else:
        path = folder / "bomb.csv"
        names = ",".join(f"c{i}" for i in range(100_000))
        path.write_text(f"task,score,{names}\n" + "1,2," + "0," * 99_999 + "0\n")
    return path


class Session:
    """Run commands in a folder, and stop at the first that misbehaves."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed, self.number = folder, seed, 0
        self.codes: Counter[tuple[str, int]] = Counter()
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text(SECRET)

    def run(self, arguments: list[str], output: Path | None = None, *, new: bool = True) -> int:
        """Run a command and return its exit code; exit with a message if it misbehaved."""
        before = self._snapshot(output)
        outcome = CliRunner().invoke(app, arguments)
        problem = None
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            problem = "".join(traceback.format_exception(outcome.exception))
        elif outcome.exit_code not in (0, 2) or "Traceback" in outcome.output:
            problem = f"exit code {outcome.exit_code}:\n{outcome.output}"
        elif new and output is not None and output.exists() != (outcome.exit_code == 0):
            problem = f"exit code {outcome.exit_code}, and {output.name} exists: {output.exists()}"
        elif SECRET in outcome.output or "\x1b[2J" in outcome.output:
            problem = f"shows what it should not:\n{outcome.output}"
        elif changed := self._snapshot(output) ^ before:
            problem = f"touched {sorted(map(str, changed))}"
        elif (peak := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) > MAX_MEMORY:
            problem = f"used {peak / 1e9:.1f} GB of memory"
        if problem is not None:
            raise SystemExit(f"seed {self.seed}, {self.number}: {' '.join(arguments)}\n{problem}")
        self.codes[arguments[0], outcome.exit_code] += 1
        return outcome.exit_code

    def _snapshot(self, output: Path | None) -> set[tuple[Path, int, int, int]]:
        """Return all files but those in the output, with size, time and inode."""
        found = set()
        for path in self.folder.rglob("*"):
            if output is None or not path.is_relative_to(output):
                stat = path.lstat()
                time_changed = 0 if path.is_dir() and not path.is_symlink() else stat.st_mtime_ns
                found.add((path, stat.st_size if time_changed else 0, time_changed, stat.st_ino))
        return found


def fuzz_tables(
    session: Session, chance: random.Random, *, report: bool
) -> tuple[Path, bytes] | None:
    """Fit, predict and evaluate mutated tables; return the run, if any, and the valid table."""
    folder, number = session.folder, session.number
    good = table(chance)
    for name in ("fit", "new"):
        (folder / f"{name}.csv").write_bytes(mutate(good, chance))
    source = bomb(folder, chance) if chance.random() < 0.05 else folder / "fit.csv"
    out, predicted = folder / f"run-{number}", folder / f"predicted-{number}.csv"
    arguments = ["fit", str(source), "--target", chance.choice(TARGETS), "--task", "task"]
    arguments += ["--method", "shared", "--out", str(out)]
    arguments += ["--holdout", chance.choice(["0", "0.3"])]
    if chance.random() < 0.3:
        arguments += ["--kind", chance.choice(["classification", "regression", "counts"])]
    if chance.random() < 0.2:
        arguments += ["--missing", "NA,x", "--spreadsheet"]
    with unreported(not report):
        code = session.run(arguments, out)
    if source.name.startswith("bomb"):
        source.unlink()
    if code:
        return None
    session.run(["predict", str(out), str(folder / "new.csv"), "--out", str(predicted)], predicted)
    session.run(["evaluate", str(out), str(folder / "new.csv")])
    predicted.unlink(missing_ok=True)
    return out, good


def fuzz_run(
    session: Session, run: Path, good: bytes, chance: random.Random, *, report: bool
) -> None:
    """Use a mutated copy of a run, with a valid table."""
    copy = copy_run(run, session.folder / "mutated" / "run")
    predicted = session.folder / f"predicted-{session.number}.csv"
    mutate_run(copy, session.outside, chance)
    new = session.folder / "new.csv"
    new.write_bytes(good)
    session.run(["predict", str(copy), str(new), "--out", str(predicted)], predicted)
    predicted.unlink(missing_ok=True)
    if chance.random() < 0.2:
        session.run(["evaluate", str(copy), str(new)])
    with unreported(not report):
        session.run(["report", str(copy)], copy, new=False)


@contextmanager
def unreported(without: bool) -> Iterator[None]:
    """Leave the pictures of reports out, which take most of the time."""
    write = report_module._drawn
    if without:
        report_module._drawn = lambda picture, folder: {  # type: ignore[assignment]
            **vars(picture),
            "source": "",
            "width": 1,
            "height": 1,
        }
    try:
        yield
    finally:
        report_module._drawn = write


def main() -> None:
    """Run until the time is up, and count the exit codes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    run_directory.MAX_DRAWN = 1  # few draws
    original = base.presets
    base.presets = lambda kind: {  # type: ignore[assignment]
        "shared": replace(original(kind)["shared"].many_features, fitting={"num_steps": 12})
    }
    chance = random.Random(chosen.seed)
    end = time.monotonic() + 60 * chosen.minutes
    with tempfile.TemporaryDirectory() as scratch:
        session = Session(Path(scratch).resolve(), chosen.seed)
        runs: list[tuple[Path, bytes]] = []
        while time.monotonic() < end:
            session.number += 1
            report = chance.random() < 0.05
            if len(runs) < 3 or chance.random() < 0.25:
                run = fuzz_tables(session, chance, report=report)
                runs += [] if run is None else [run]
                for old, _ in runs[:-6]:
                    shutil.rmtree(old)
                runs = runs[-6:]
            else:
                fuzz_run(session, *chance.choice(runs), chance, report=report)
    for (command, code), count in sorted(session.codes.items()):
        print(f"{command}: {count} ended with {code}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{session.codes.total()} commands, peak memory {peak / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
