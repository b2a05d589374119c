"""Runs of strangers: nothing outside is read or written, and nothing large is allocated."""

import json
import os
import shutil

import h5py
import numpy as np
import pytest
from small_tables import quick_presets, table
from typer.testing import CliRunner

from pyro_vmtl.analysis.export import hdf5_checks
from pyro_vmtl.cli import run_directory
from pyro_vmtl.cli.main import app
from pyro_vmtl.cli.run_files import write_checksums

SECRET = "the secret of a file elsewhere"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run with a report, and its table, not to be written to."""
    folder = tmp_path_factory.mktemp("runs")
    table().to_csv(folder / "a.csv", index=False)
    with pytest.MonkeyPatch.context() as patched:
        quick_presets(patched)
        patched.setattr(run_directory, "write_run_report", lambda *args, **settings: None)
        options = ["--target", "y", "--task", "task", "--method", "shared", "--holdout", 0.25]
        assert run("fit", folder / "a.csv", *options, "--out", folder / "run").exit_code == 0
    return folder


@pytest.fixture
def stranger(original, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text(SECRET)
    return shutil.copytree(original / "run", tmp_path / "run")


def link(name):
    """Replace a file or folder of a run by a link to a copy outside."""

    def change(folder):
        elsewhere = folder.parent / "outside" / "moved"
        if (folder / name).exists():
            (folder / name).rename(elsewhere)
        (folder / name).symlink_to(elsewhere)

    return change


def edit(name, *path, to):
    """Change a JSON file, and compute its right checksum."""

    def change(folder):
        content = place = json.loads((folder / name).read_text())
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to
        (folder / name).write_text(json.dumps(content))

    return change


def hdf5(change):
    def apply(folder):
        with h5py.File(folder / "posterior.nc", "a") as file:
            change(file, folder.parent / "outside" / "secret")

    return apply


def external_storage(file, secret):
    outside = [(str(secret), 0, 16)]
    file["posterior"].create_dataset("stolen", (16,), "i1", external=outside)


def external_link(file, secret):
    file["posterior/stolen"] = h5py.ExternalLink(str(secret), "/")


def virtual(file, secret):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "x", (4,))
    file["posterior"].create_virtual_dataset("stolen", layout)


def circle(file, secret):
    file["posterior/again"] = file["posterior"]


def gigabytes(file, secret):
    file["posterior"].create_dataset("zeros", (10**6, 10**6), "f4", chunks=(1000, 1000))


def pipe(folder):
    (folder / "summary.csv").unlink()
    os.mkfifo(folder / "summary.csv")


def written(name, text):
    return lambda folder: (folder / name).write_text(text)


def linked_influence(folder):
    (folder / "influence.nc").symlink_to(folder.parent / "outside" / "secret")


def other_influence(folder):
    shutil.copy(folder / "posterior.nc", folder / "influence.nc")


HOSTILE = {
    "linked metrics": ("report", link("metrics.json"), "is a link"),
    "linked summary": ("report", link("summary.csv"), "is a link"),
    "linked posterior": ("report", link("posterior.nc"), "is a link"),
    "linked influence": ("report", linked_influence, "is a link"),
    "other influence": ("report", other_influence, "cannot be reported"),
    "linked pictures": ("report", link("pictures"), "is a link"),
    "linked table": ("predict", link("table.json"), "is a link"),
    "linked estimator": ("predict", link("estimator"), "is a link"),
    "linked weights": ("predict", link("estimator/weights.safetensors"), "is a link"),
    "a pipe": ("report", pipe, "no summary.csv"),
    "external storage": ("report", hdf5(external_storage), "no numbers of its own"),
    "external link": ("report", hdf5(external_link), "is a link"),
    "virtual": ("report", hdf5(virtual), "no numbers of its own"),
    "circle": ("report", hdf5(circle), "is there twice"),
    "gigabytes": ("report", hdf5(gigabytes), "PYRO_VMTL_MAX_RUN_BYTES"),
    "no variable": ("report", hdf5(lambda file, _: file.__delitem__("posterior")), "cannot be"),
    "command": ("report", edit("metrics.json", "stopped", to="$(touch stolen)"), "stopped"),
    "kind": ("report", edit("metrics.json", "kind", to="<script>"), "kind"),
    "rows": ("report", edit("metrics.json", "rows", to={"fit": "many"}), "rows"),
    "scores": ("report", edit("metrics.json", "per_task", to={"a": {"rows": {}}}), "per_task"),
    "seconds": ("report", edit("metrics.json", "seconds", to=float("inf")), "seconds"),
    "unknown key": ("report", edit("metrics.json", "more", to=1), "more"),
    "deep": ("report", written("metrics.json", "[" * 10**5), "cannot be read"),
    "long JSON": ("report", written("metrics.json", "1" * 60_000_000), "JSON_BYTES"),
    "a list": ("report", written("metrics.json", "[1]"), "cannot be read"),
    "summary": ("report", written("summary.csv", "a,b\n1,2\n"), "cannot be"),
    "median": ("predict", edit("table.json", "columns", "medians", to={"x": 1e999}), "medians"),
    "texts": ("predict", edit("table.json", "columns", "categories", to={"x": 1}), "categories"),
}  # fmt: skip


@pytest.mark.parametrize("how", HOSTILE)
def test_a_strangers_run_is_refused(original, stranger, how):
    command, change, message = HOSTILE[how]
    change(stranger)
    (stranger / "SHA256SUMS").unlink()
    write_checksums(stranger)
    before = {path: path.lstat().st_mtime_ns for path in stranger.parent.rglob("*")}
    more = [original / "a.csv", "--out", stranger / "p.csv"] if command == "predict" else []
    result = run(command, stranger, *more)
    assert result.exit_code == 2 and message in result.output, result.output
    assert SECRET not in result.output and "Traceback" not in result.output
    assert {path: path.lstat().st_mtime_ns for path in stranger.parent.rglob("*")} == before


@pytest.mark.slow
def test_a_report_replaces_links_and_never_follows_them(stranger):
    """Neither the page and the pictures, nor temporary files whose names can be guessed."""
    secret = stranger.parent / "outside" / "secret"
    (stranger / "pictures").mkdir(exist_ok=True)
    names = ["report.html", "pictures/elbo.svg", "pictures/elbo.png"]
    names += [f".report.html.{os.getpid()}.part", f"pictures/.elbo.svg.{os.getpid()}.part"]
    for name in names:
        (stranger / name).unlink(missing_ok=True)
        (stranger / name).symlink_to(secret)
    assert run("report", stranger).exit_code == 0
    assert secret.read_text() == SECRET
    assert not any((stranger / name).is_symlink() for name in names[:3])


@pytest.mark.slow
def test_commands_in_the_report_are_quoted(stranger):
    odd = stranger.rename(stranger.with_name("$(touch x) `id` \"a' b"))
    assert run("report", odd).exit_code == 0
    page = (odd / "report.html").read_text()
    quoted = str(odd).replace("'", "'\"'\"'")
    escaped = f"'{quoted}/config.toml'".replace('"', "&#34;").replace("'", "&#39;")
    assert escaped in page


def test_a_run_may_be_moved(original, stranger, tmp_path):
    moved = stranger.rename(tmp_path / "elsewhere")
    results = [
        run("predict", folder, original / "a.csv", "--out", tmp_path / f"{name}.csv")
        for name, folder in (("here", original / "run"), ("there", moved))
    ]
    assert all(result.exit_code == 0 for result in results)
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()


def test_texts_are_counted_block_by_block(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["texts"] = np.array(["a" * 100] * 50, dtype=object)
    hdf5_checks.check_hdf5(tmp_path / "a.h5")
    monkeypatch.setenv("PYRO_VMTL_MAX_RUN_BYTES", "8000")  # the file has 6 kB
    with pytest.raises(ValueError, match="RUN_BYTES"):
        hdf5_checks.check_hdf5(tmp_path / "a.h5")


def test_the_summary_of_an_older_run_is_read(stranger):
    """Its shares were called weights."""
    path, (_, now) = stranger / "summary.csv", run_directory.read_run(stranger)
    header, *rows = path.read_text().split("\n")
    assert header.endswith(",share")
    path.write_text("\n".join([header.replace(",share", ",weight"), *rows]))
    write_checksums(stranger)
    _, older = run_directory.read_run(stranger)
    assert older.equals(now)
