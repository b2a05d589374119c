"""Tensors and texts in safetensors files, written atomically and read with suspicion.

The file's own header has a checksum. It tells accidents, not intent: whoever changes a file on
purpose computes a new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pyro_vmtl.data.atomic_files import atomic_write
from pyro_vmtl.data.limits import check_limit

__all__ = ["read_tensors", "write_tensors"]

CHECKSUM = "sha256"


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors, and texts by name, to a file; an earlier one stays until it is complete."""
    own = {name: v.detach().cpu().contiguous().clone() for name, v in tensors.items()}
    texts = dict(metadata or {})
    with atomic_write(path) as scratch:
        save_file(own, scratch, metadata={**texts, CHECKSUM: _checksum(own, texts)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors, free of NaN, and texts from a file.

    Raises
    ------
    ValueError
        If the file is too large, damaged or changed, or has NaN in a tensor.
    """
    try:
        check_limit("RUN_BYTES", path.stat().st_size, path)
        with safe_open(path, "pt") as file:
            texts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is no file of tensors, or is broken ({error}).") from error
    checksum = texts.pop(CHECKSUM, None)  # files of earlier versions have none
    if checksum is not None and checksum != _checksum(tensors, texts):
        raise ValueError(f"{path} is not what was saved: it was changed. Take an unchanged copy.")
    for name, values in tensors.items():
        if values.is_floating_point() and values.isnan().any():
            raise ValueError(f"{path} has NaN in {name!r}, expected numbers. Fit again.")
    return tensors, texts


def _checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(texts.items())).encode())
    for name, values in sorted(tensors.items()):
        digest.update(f"{name}{values.dtype}{tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
