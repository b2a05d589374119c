"""Mutations of run directories for :mod:`benchmarks.fuzz`: all files, by bits and by structure."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pyro_vmtl.cli.run_files import write_checksums
from pyro_vmtl.estimators import saving

__all__ = ["mutate_run"]

NOT_APPLICABLE = (
    *(OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError),
    SafetensorError,
)
"""What a mutation raises where an earlier one has broken the file."""

VALUES: list[Any] = [
    *(None, True, 0, -1, 1, 10**9, 10**30, 0.5, float("nan"), float("inf"), "", "x" * 1000),
    *("../../etc/passwd", "$(touch stolen)", "<script>", "\x1b[2J", "\u202e", "NaN", [], {}),
    *([[]], {"object": "os.system"}, {"class": "eval"}, ["a"] * 1000, {"": {"": 1}}),
]


def mutate_run(folder: Path, outside: Path, chance: random.Random) -> None:
    """Change some files of a run, and mostly compute the checksums anew, as an attacker would."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".svg")
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        path = chance.choice(files)
        with suppress(*NOT_APPLICABLE):
            chance.choice([*BY_SUFFIX.get(path.suffix, []), *BY_SUFFIX.get(path.suffix, []), *ANY])(
                path, outside, chance
            )
    if chance.random() < 0.75:
        with suppress(*NOT_APPLICABLE):
            place = folder / "estimator" / saving.CONFIG
            config = json.loads(place.read_text())
            config.pop("checksum", None)
            config["checksum"] = saving._checksum(config, place.with_name(saving.WEIGHTS))
            place.write_text(json.dumps(config))
        with suppress(OSError):
            (folder / "SHA256SUMS").unlink(missing_ok=True)
            write_checksums(folder)


def _flip(path: Path, outside: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 3, 30])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def _cut(path: Path, outside: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size + 1)])


def _remove(path: Path, outside: Path, chance: random.Random) -> None:
    path.unlink()
    if chance.random() < 0.3:
        path.mkdir()


def _link(path: Path, outside: Path, chance: random.Random) -> None:
    path = chance.choice([path, *([path.parent] if path.parent.name != "run" else [])])
    elsewhere = outside / f"{chance.randrange(10**9)}"
    path.rename(elsewhere)
    path.symlink_to(chance.choice([elsewhere, outside / "secret"]))


def _json(path: Path, outside: Path, chance: random.Random) -> None:
    content = json.loads(path.read_text())
    for _ in range(chance.choice([1, 1, 2, 5])):
        place = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and chance.random() < 0.8:
                place = place[key]
                continue
            if chance.random() < 0.2:
                del place[key]
            else:
                place[key] = chance.choice(VALUES)
            if isinstance(place, dict) and chance.random() < 0.1:
                place[str(chance.choice(VALUES))] = chance.choice(VALUES)
            break
    path.write_text(json.dumps(content))


def _tensors(path: Path, outside: Path, chance: random.Random) -> None:
    tensors = load_file(path)
    for _ in range(chance.choice([1, 1, 3])):
        name = chance.choice(sorted(tensors))
        value = tensors.pop(name)
        change = chance.choice(TENSOR_CHANGES)
        if change is not None:
            tensors[name] = change(value).contiguous().clone()
    save_file(tensors, path)


TENSOR_CHANGES: list[Callable[[torch.Tensor], torch.Tensor] | None] = [
    None,
    lambda v: v * float("nan"),
    lambda v: v + float("inf"),
    lambda v: v * 1e30,
    lambda v: -v,
    lambda v: v * 0,
    lambda v: v[..., :-1],
    lambda v: v[None],
    lambda v: torch.cat([v, v]),
    lambda v: v.double(),
    lambda v: v.to(torch.int64),
    lambda v: v.flatten()[:0],
    lambda v: torch.zeros(10**6),
]


def _hdf5(path: Path, outside: Path, chance: random.Random) -> None:
    with h5py.File(path, "a") as file:
        names: list[str] = []
        file.visit(names.append)
        name = chance.choice(names)
        kind = chance.randrange(7)
        if kind == 0:
            del file[name]
        elif kind == 1:
            file.move(name, f"{name}{chance.randrange(9)}")
        elif kind == 2:
            file[f"{name}-link"] = h5py.ExternalLink(str(outside / "secret"), "/")
        elif kind == 3:
            shape = chance.choice([(10**12,), (10**5, 10**5), (10**9, 4)])
            file.create_dataset(f"{name}-zeros", shape, "f8", chunks=True)
        elif kind == 4:
            file.create_dataset(f"{name}-x", (8,), "i1", external=[(str(outside / "secret"), 0, 8)])
        elif kind == 5:
            owner = file[chance.choice(names)]
            keys = sorted(owner.attrs) or ["units"]
            owner.attrs[chance.choice(keys)] = chance.choice(["x", 1e9, "days since 1", -1, "{"])
        elif isinstance(file[name], h5py.Dataset):
            values = file[name][()]
            del file[name]
            changes = [values[:1], values[..., None], np.zeros_like(values), values * np.nan]
            file[name] = chance.choice(changes)


ANY = [_flip, _cut, _remove, _link]
BY_SUFFIX: dict[str, list[Any]] = {
    ".json": [_json] * 4,
    ".safetensors": [_tensors] * 4,
    ".nc": [_hdf5] * 4,
}


def copy_run(run: Path, to: Path) -> Path:
    """Copy a run, links and all."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(run, to))
