"""Data sets that are not embedded, on small files of the same layout."""

import gzip
import hashlib

import numpy as np
import pytest
from scipy.io import savemat

from benchmarks.datasets import DATA_SETS, OfficeCaltech, RotatedMNIST, School
from benchmarks.datasets.digits import DigitsAngle
from benchmarks.datasets.office_caltech import DOMAINS


def checksums(folder, names):
    return {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with made-up files, and their checksums in the classes."""
    rng = np.random.default_rng(0)
    monkeypatch.setenv("PYRO_VMTL_DATA", str(tmp_path))
    for name in ("office_caltech10", "mnist", "school"):
        (tmp_path / name).mkdir()

    arrays = {}
    for domain, rows in zip(DOMAINS, (60, 80, 20, 40), strict=True):
        arrays[f"{domain}_X"] = rng.normal(size=(rows, 6)).astype(np.float16)
        arrays[f"{domain}_y"] = np.tile([1, 2], rows // 2).astype(np.uint8)
    lists = {}
    for domain in DOMAINS:
        lists[f"{domain}_train_5"] = np.array([0, 1, 1, 0, 2, 3], np.int16)  # with repeats
        lists[f"{domain}_test_5"] = np.arange(4, 20, dtype=np.int16)
    effnet, surf, published = OfficeCaltech.files
    np.savez(tmp_path / effnet, classes=np.array(["bike", "mug"]), **arrays)
    np.savez(tmp_path / surf, **arrays)
    np.savez(tmp_path / published, **lists)

    for part, rows in (("train", 300), ("t10k", 100)):
        images = rng.integers(0, 256, size=(rows, 28, 28), dtype=np.uint8)
        digits = np.tile(np.arange(10, dtype=np.uint8), rows // 10)
        for kind, values, header in (("images-idx3", images, 16), ("labels-idx1", digits, 8)):
            with gzip.open(tmp_path / f"mnist/{part}-{kind}-ubyte.gz", "wb") as file:
                file.write(bytes(header) + values.tobytes())

    x = rng.integers(0, 2, size=(28, 90)).astype(np.uint8)
    x[3] = 1  # a feature that is the same in all rows
    task_indexes = np.array([[1], [41], [61]], np.uint16)  # schools of 40, 20 and 30 students
    y = rng.integers(0, 70, size=(90, 1)).astype(np.uint8)
    savemat(tmp_path / "school/school_b.mat", {"x": x, "y": y, "task_indexes": task_indexes})
    for number in range(1, 11):
        order = rng.permutation(90) + 1
        rows = {"tr": order[None, :60], "tst": order[None, 60:]}
        savemat(tmp_path / f"school/school_{number}_indexes.mat", rows)

    for data_set in (OfficeCaltech, RotatedMNIST, School):
        monkeypatch.setattr(data_set, "files", checksums(tmp_path, data_set.files))
    return tmp_path


ALL = [OfficeCaltech(percent=10), OfficeCaltech(lists="mrn"), OfficeCaltech(features="surf")]
ALL += [RotatedMNIST(rows=5, test_rows=8), School(), DigitsAngle()]


@pytest.mark.parametrize("data_set", ALL)
@pytest.mark.parametrize("validation", [False, True])
def test_every_split_keeps_its_originals_apart(folder, data_set, validation):
    data_set.check()
    split = data_set.split(1, validation=validation)
    assert not set(split.origin_train) & set(split.origin_test)
    assert len(set(split.origin_train)) == len(split.origin_train)
    for side in ("train", "test"):
        X, y, tasks, origin = (getattr(split, f"{k}_{side}") for k in ("X", "y", "tasks", "origin"))
        assert len(X) == len(y) == len(tasks) == len(origin) > 0 and np.isfinite(X).all()
    assert set(split.tasks_test) <= set(split.tasks_train)
    again, other = (data_set.split(s, validation=validation) for s in (1, 2))
    np.testing.assert_array_equal(split.X_train, again.X_train)
    if not data_set.split_label(1).startswith("mrn"):
        assert not np.array_equal(split.X_train, other.X_train)


def test_validation_rows_are_no_test_rows_of_published_splits(folder):
    for data_set in (School(), OfficeCaltech(lists="mrn")):
        final = data_set.split(3)
        chosen_on = data_set.split(3, validation=True)
        used = set(chosen_on.origin_train) | set(chosen_on.origin_test)
        assert used <= set(final.origin_train)


def test_validation_digits_come_from_the_training_images(folder):
    split = RotatedMNIST(rows=5, test_rows=8).split(0, validation=True)
    assert max(split.origin_test) < 300
    final = RotatedMNIST(rows=5, test_rows=8).split(0)
    assert min(final.origin_test) >= 300
    # and so for the embedded digits
    chosen_on, final = DigitsAngle().split(0, validation=True), DigitsAngle().split(0)
    used = set(chosen_on.origin_train) | set(chosen_on.origin_test)
    assert not used & set(final.origin_test)


def test_office_caltech_draws_each_class_of_each_collection(folder):
    split = OfficeCaltech(percent=10).split(0)
    tasks, y = np.array(split.tasks_train), np.array(split.y_train)
    for domain, rows in zip(DOMAINS, (60, 80, 20, 40), strict=True):
        for label in ("bike", "mug"):
            count = ((tasks == domain) & (y == label)).sum()
            assert count == max(1, round(0.1 * rows / 2))
    np.testing.assert_allclose(np.linalg.norm(split.X_test, axis=1), 1)
    assert len(split.y_train) + len(split.y_test) == 200
    raw = np.concatenate(
        [np.load(folder / OfficeCaltech.files.__iter__().__next__())[f"{d}_X"] for d in DOMAINS]
    ).astype(float)
    centred = raw - raw[split.origin_train].mean(axis=0)  # of training rows alone
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(split.X_test, expected[split.origin_test])
    published = OfficeCaltech(lists="mrn").split(0)
    assert len(published.y_train) == 4 * 4  # rows 0 to 3 of each, once
    with pytest.raises(ValueError, match="expected 5, 10 or 20"):
        OfficeCaltech(percent=7, lists="mrn")
    with pytest.raises(ValueError, match="expected above 0"):
        OfficeCaltech(percent=0)


def test_school_knows_its_schools_and_scales_by_training_rows(folder):
    split = School().split(2)
    school = np.searchsorted([0, 40, 60], split.origin_test, side="right")
    assert split.tasks_test == school.tolist()
    spread = split.X_train.std(axis=0)
    np.testing.assert_allclose(split.X_train.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(spread[np.arange(27) != 3], 1)
    assert (split.X_train[:, 3] == 0).all() and split.X_train.shape == (60, 27)
    with pytest.raises(ValueError, match="ten published splits"):
        School().split(10)


def test_angles_turn_the_images(folder):
    split = RotatedMNIST(rows=5, test_rows=8).split(0)
    assert split.y_train.min() >= 0 and split.y_train.max() <= 90 and np.ptp(split.y_train) > 45
    assert np.bincount(split.tasks_train).tolist() == [5] * 10
    assert np.bincount(split.tasks_test).tolist() == [8] * 10
    np.testing.assert_allclose(split.X_train.mean(axis=0), 0, atol=1e-12)
    with pytest.raises(ValueError, match="rows is 500"):
        DigitsAngle(rows=500).split(0)
    with pytest.raises(ValueError, match="rows is 30, expected below 30"):
        RotatedMNIST(rows=30).split(0)
    with pytest.raises(ValueError, match="test_rows is 0"):
        RotatedMNIST(test_rows=0)


def test_missing_and_damaged_files_are_told_with_the_remedy(folder, monkeypatch):
    damaged = folder / "school" / "school_4_indexes.mat"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"school_4_indexes.mat has SHA-256 .* Get it anew"):
        School().check()
    damaged.unlink()
    with pytest.raises(FileNotFoundError, match=r"school_4_indexes.mat is missing.*Put it there"):
        School().check()
    with pytest.raises(FileNotFoundError, match=r"is missing\. Set PYRO_VMTL_DATA"):
        School().split(3)
    monkeypatch.delenv("PYRO_VMTL_DATA")
    with pytest.raises(FileNotFoundError, match=r"PYRO_VMTL_DATA is not set. Set it to a folder"):
        School().check()
    DigitsAngle().check()  # embedded


def test_every_data_set_says_where_it_comes_from():
    for name, data_set in DATA_SETS.items():
        assert data_set.name == name
        assert data_set().kind in ("classification", "regression")
        assert len(data_set.provenance) > 20 and data_set.licence
        assert all(len(checksum) == 64 for checksum in getattr(data_set, "files", {}).values())
