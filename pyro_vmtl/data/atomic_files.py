"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_write", "check_free", "new_directory"]


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path that becomes ``path`` at the end, if all went well.

    Parameters
    ----------
    path
        The file to write. An earlier one stays until the new one is complete.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def check_free(out: Path, *, overwrite: bool, marker: str) -> None:
    """Check, before any work, that a folder can be written.

    Parameters
    ----------
    out
        The folder to be.
    overwrite
        May an earlier one be there?
    marker
        A file that such folders have: others are never overwritten.

    Raises
    ------
    OSError
        If something is there that may not be overwritten, or the folder cannot be written to. The
        message names the way out.
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
    """Give a temporary folder that becomes ``out`` at the end, if all went well.

    Parameters
    ----------
    out
        The folder to make.
    overwrite
        May an earlier one be there? It stays until the new one is complete.
    marker
        A file that such folders have: others are never overwritten.

    Raises
    ------
    OSError
        As :func:`check_free` does.
    """
    check_free(out, overwrite=overwrite, marker=marker)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    new, old = scratch / "new", scratch / "old"
    try:
        new.mkdir()
        yield new
        check_free(out, overwrite=overwrite, marker=marker)
        if out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
