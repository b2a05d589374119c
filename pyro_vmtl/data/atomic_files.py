"""Files and folders that are written atomically: completely, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_write", "check_writable", "new_directory"]


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces the file ``path`` unless an exception is raised.

    Its name is random, in a folder of its own: in a stranger's folder, a name that can be guessed
    may be a link to elsewhere. Where ``path`` is a link, the link is replaced.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name[:40]}.", dir=path.parent) as folder:
        scratch = Path(folder) / "part"
        yield scratch
        scratch.chmod(0o666 & ~_umask())  # safetensors makes files that only their owner can read
        scratch.replace(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_writable(out: Path, *, overwrite: bool, marker: str) -> None:
    """Check that a folder can be written, before any work is done.

    Only folders with a file ``marker``, as those written by pyro_vmtl have, are overwritten.
    """
    if out.exists() and not overwrite:
        raise FileExistsError(
            f"{out} exists already. Choose another folder, or pass --overwrite (overwrite=True)."
        )
    if out.exists() and not (out / marker).is_file():
        raise FileExistsError(
            f"{out} was not written by pyro_vmtl (it has no {marker}), so it is not overwritten. "
            "Choose another folder."
        )
    parent = next(p for p in out.absolute().parents if p.exists())
    try:
        tempfile.TemporaryDirectory(dir=parent).cleanup()
    except OSError as error:
        raise PermissionError(
            f"{parent} cannot be written to ({error.strerror}). Choose another folder."
        ) from error


@contextmanager
def new_directory(out: Path, *, overwrite: bool, marker: str) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``out`` unless an exception is raised.

    ``overwrite`` and ``marker`` are those of :func:`check_writable`.
    """
    check_writable(out, overwrite=overwrite, marker=marker)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    new, old = scratch / "new", scratch / "old"
    try:
        new.mkdir()
        yield new
        check_writable(out, overwrite=overwrite, marker=marker)
        if out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
