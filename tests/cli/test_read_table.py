"""Table files: what is read is what was written, and bad files are told from good ones."""

import gzip
import io
import random
import resource
import time
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from pyro_vmtl.cli import read_table as read_table_module
from pyro_vmtl.cli.columns import Columns
from pyro_vmtl.cli.read_table import read_table
from pyro_vmtl.cli.target import read_target, read_tasks
from pyro_vmtl.cli.user_errors import InputError
from pyro_vmtl.cli.write_table import write_table

GOOD = b"school,age,sex,score\n007,7,f,1.5\n007,,m,2.5\n011,9,f,0.5\n011,8,NA,3.0\n"


def npz(path, **arrays):
    np.savez(path, **arrays)


def pickled(path):
    np.savez(path, X=np.ones((2, 2)), tasks=np.array(["a", None], dtype=object))


def parquet(path, **columns):
    pd.DataFrame(columns).to_parquet(path)


def not_text(path):
    text = pa.array([b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"a": text}), path)


def cut(write):
    """What `write` writes, without its second half."""

    def build(path):
        write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return build


def content(data):
    return lambda path: path.write_bytes(data)


def nothing(path):
    pass


def near(path):
    path.with_name("school.csv").write_bytes(GOOD)


# id, file, what makes it, what the message must hold
BAD = [
    ("missing", "scool.csv", near, "does not exist. Did you mean 'school.csv'?"),
    ("missing, empty folder", "a.csv", nothing, "does not exist. There is nothing else."),
    ("no folder", "deep/down/a.csv", nothing, "nor does the folder"),
    ("folder", "a.csv", lambda path: path.mkdir(), "is a folder, expected a table file"),
    ("name too long", "a" * 300 + ".csv", nothing, "cannot be read"),
    ("suffix", "a.xlsx", content(b"PK"), "unknown format, expected one of .csv"),
    ("no suffix", "data", content(GOOD), "unknown format"),
    ("no bytes", "a.csv", content(b""), "empty (0 bytes)"),
    ("no bytes, parquet", "a.parquet", content(b""), "empty (0 bytes)"),
    ("white space", "a.csv", content(b"\xef\xbb\xbf \n\n"), "is empty"),
    ("header only", "a.csv", content(b"a,b\n\n\n"), "a header and no rows"),
    ("semicolons", "a.csv", content(b"a;b\n1,5;2\n"), "found semicolons: save it with commas"),
    ("tabs", "a.csv", content(b"a\tb\n1\t2\n"), "found tabs: name it .tsv"),
    ("bars", "a.csv", content(b"a|b\n1|2\n"), "found bars (|)"),
    ("bars in rows", "a.csv", content(b"data\n1|2\n"), "found bars (|)"),
    ("commas", "a.tsv", content(b"a,b\n1,2\n"), "expected tabs between columns and found commas"),
    ("nul", "a.csv", content(b"a,b\n1,\0\n"), "NUL bytes"),
    ("utf-16", "a.csv", content("a,b\n1,2\n".encode("utf-16")), "encoding UTF-8"),
    ("latin-1", "a.csv", content("a,b\n1,é\n".encode("latin-1")), "line 2 has the byte 0xe9"),
    ("long row", "a.csv", content(b"a,b\n1,2\n1,2,3\n"), "row 3 has 3 entries, expected 2"),
    ("short row", "a.csv", content(b'a,b\n"1\n1",2\n1\n'), "row 3 has 1 entry, expected 2"),
    ("empty row", "a.csv", content(b"a,b\n1,2\n\n1,2\n"), "row 3 has no entries"),
    ("empty first row", "a.csv", content(b"\na,b\n1,2\n"), "row 1 is empty"),
    ("twice", "a.csv", content(b"a,b, a\n1,2,3\n"), "has the columns 'a' more than once"),
    ("no name", "a.csv", content(b",b\n0,2\n"), "column 1 of 2 has no name"),
    ("open quote", "a.csv", content(b'a,b\n1,2\n"1,2\n'), "row 3 cannot be read"),
    ("quote inside", "a.csv", content(b'a,b\n"x"y,2\n'), "row 2 cannot be read"),
    ("huge entry", "a.csv", content(b"a,b\n1," + b"x" * 200_000 + b"\n"), "row 2 cannot be read"),
    ("not gzip", "a.csv.gz", content(GOOD), "not a complete gzip file"),
    ("cut gzip", "a.csv.gz", cut(content(gzip.compress(GOOD))), "not a complete gzip file"),
    ("not parquet", "a.parquet", content(GOOD), "not a complete Parquet file"),
    (
        "cut parquet",
        "a.parquet",
        cut(lambda p: parquet(p, a=[1, 2])),
        "not a complete Parquet file",
    ),
    ("parquet, no rows", "a.parquet", lambda p: parquet(p, a=[]), "has no rows"),
    ("parquet, no columns", "a.parquet", lambda p: parquet(p), "has no columns"),
    ("parquet, not UTF-8", "a.parquet", not_text, "not a complete Parquet file"),
    ("not npz", "a.npz", content(GOOD), "not a complete .npz archive"),
    ("cut npz", "a.npz", cut(lambda p: npz(p, X=np.ones((9, 9)))), "not a complete .npz archive"),
    ("pickle", "a.npz", pickled, "Python objects, which are not read"),
    ("npz, no X", "a.npz", lambda p: npz(p, x=np.ones((2, 2))), "x float64 (2, 2), expected"),
    ("npz, flat X", "a.npz", lambda p: npz(p, X=np.ones(2)), "X float64 (2,), expected"),
    ("npz, rows", "a.npz", lambda p: npz(p, X=np.ones((2, 2)), y=[1]), "y int64 (1,), expected"),
    (
        "npz, y in 2-d",
        "a.npz",
        lambda p: npz(p, X=np.ones((2, 2)), y=[[1], [2]]),
        "y int64 (2, 1)",
    ),
    (
        "npz, names",
        "a.npz",
        lambda p: npz(p, X=np.ones((2, 2)), features=["a"]),
        "features <U1 (1,), expected",
    ),
    (
        "npz, names twice",
        "a.npz",
        lambda p: npz(p, X=np.ones((2, 2)), features=["a", "y"], y=[1, 2]),
        "'y' more than once",
    ),
    (
        "npz, complex",
        "a.npz",
        lambda p: npz(p, X=np.ones((2, 2)) * 1j),
        "X complex128 (2, 2)",
    ),
    ("npz, no rows", "a.npz", lambda p: npz(p, X=np.ones((0, 2))), "has no rows"),
]


@pytest.mark.parametrize(("file", "build", "part"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_files_are_told(tmp_path, file, build, part):
    path = tmp_path / file
    build(path)
    with pytest.raises(InputError) as error:
        read_table(path)
    assert part in str(error.value)
    assert str(path) in str(error.value)  # names the file


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_bytes(GOOD)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)  # root may read whatever the mode says
    with pytest.raises(InputError, match=r"a\.csv cannot be read \(Permission denied\)"):
        read_table(path)


def test_pickles_in_archives_are_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    np.savez(tmp_path / "a.npz", X=np.ones((1, 1)), y=np.array([Trap()], dtype=object))
    with pytest.raises(InputError, match="Python objects"):
        read_table(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


def test_a_csv_becomes_columns_of_the_right_kind(tmp_path):
    path = tmp_path / "a.csv"
    text = (
        "id,whole,part,real,flag,text,none,huge,quoted\r\n"
        '007,9007199254740993,9007199254740993,1e3,TRUE, a,,99999999999999999999,"1,5"\r\n'
        '11,-2,NA,.5,false,"say ""hi""",null,1,\r\n\r\n'
    )
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    expected = pd.DataFrame(
        {
            "id": pd.Series(["007", "11"], dtype="string"),
            "whole": pd.Series([2**53 + 1, -2], dtype="Int64"),
            "part": pd.Series([2**53 + 1, None], dtype="Int64"),
            "real": pd.Series([1000.0, 0.5], dtype="Float64"),
            "flag": pd.Series([True, False], dtype="boolean"),
            "text": pd.Series(["a", 'say "hi"'], dtype="string"),
            "none": pd.Series([None, "null"], dtype="string"),
            "huge": pd.Series(["99999999999999999999", "1"], dtype="string"),
            "quoted": pd.Series(["1,5", None], dtype="string"),
        }
    )
    assert_frame_equal(read_table(path), expected)
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert_frame_equal(read_table(path.with_suffix(".csv.gz")), expected)
    path.with_suffix(".tsv").write_bytes(GOOD.replace(b",", b"\t"))
    path.write_bytes(GOOD)
    assert_frame_equal(read_table(path.with_suffix(".tsv")), read_table(path))


def test_all_files_give_the_same_table(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(7, 3)) * 10.0 ** rng.integers(-200, 200, size=(7, 3))
    X[2, 1] = np.nan
    tasks = np.array(["007", "b", "b", "é", "007", "x y", "b"])
    y = np.arange(7) + 2**60
    table = pd.DataFrame(X, columns=["x0", "x1", "x2"]).assign(y=y, tasks=tasks, flag=y % 2 == 0)
    np.savez(tmp_path / "a.npz", X=X, y=y, tasks=tasks, flag=y % 2 == 0)
    write_table(table, tmp_path / "new" / "a.csv")
    write_table(table, tmp_path / "a.parquet")
    expected = table.convert_dtypes()
    for file in ("a.npz", "new/a.csv", "a.parquet"):
        assert_frame_equal(read_table(tmp_path / file), expected)  # to the last bit
    np.savez(tmp_path / "named.npz", X=X, features=["a", "b", "c"])
    assert list(read_table(tmp_path / "named.npz")) == ["a", "b", "c"]


def test_parquet_keeps_what_pandas_stores(tmp_path):
    table = pd.DataFrame(
        {
            "part": pd.array([2**60 + 1, None], dtype="Int64"),
            "sort": pd.Categorical(["a", None]),
            "code": pd.Categorical([3, 4]),
            "large": np.array([2**64 - 1, 1], dtype=np.uint64),
            "day": pd.to_datetime(["2020-01-01", "2020-01-02"]),
        },
        index=pd.Index([5, 6], name="pupil"),
    )
    table.to_parquet(tmp_path / "a.parquet")
    read = read_table(tmp_path / "a.parquet")
    assert list(read) == ["pupil", "part", "sort", "code", "large", "day"]
    assert read["part"].tolist() == [2**60 + 1, pd.NA]
    assert read["sort"].tolist() == ["a", pd.NA] and read["code"].tolist() == [3, 4]
    assert read["large"].tolist() == [str(2**64 - 1), "1"]
    assert read["pupil"].tolist() == [5, 6] and read["day"].dtype.kind == "M"


def use(path):
    """Read a file as `fit` and `predict` will."""
    table = read_table(path)
    columns, _ = Columns.learn(table, target="score", task="school")
    X = columns.features(table)
    assert np.isfinite(X).all(axis=None) and len(X) == len(table)
    assert len(read_tasks(table, "school")) == len(table)
    assert len(read_target(table, "score").values) == len(table)


def mutated(data, generator):
    """Some bytes changed, dropped, put in or repeated."""
    data = bytearray(data)
    for _ in range(generator.randint(1, 6)):
        at = generator.randrange(len(data))
        match generator.randrange(4):
            case 0:
                data[at] = generator.choice([*range(256), *b',,,""\n\r;. 0e-'])
            case 1:
                del data[at : at + generator.randint(1, 8)]
            case 2:
                data[at:at] = generator.choice(
                    [b"inf", b"NA", b'"', b"\n", b",", b"1e99", b"\xc2\xa0", b"007", b"\0", b"12,5"]
                )
            case 3:
                data[at:at] = data[at : at + generator.randint(1, 30)]
        data = data or bytearray(b"a")
    return bytes(data)


@pytest.mark.parametrize(
    ("file", "tries"), [("a.csv", 600), ("a.csv.gz", 150), ("a.parquet", 200), ("a.npz", 200)]
)
def test_broken_bytes_raise_nothing_else(tmp_path, file, tries):
    path = tmp_path / file
    frame = pd.read_csv(io.BytesIO(GOOD), dtype={"school": str})
    if file == "a.parquet":
        frame.to_parquet(path)
    elif file == "a.npz":
        named = {name: frame[name].to_numpy() for name in ("age", "score")}
        np.savez(path, X=np.eye(4), school=frame["school"].to_numpy(dtype=str), **named)
    else:
        path.write_bytes(gzip.compress(GOOD) if file.endswith("gz") else GOOD)
    use(path)
    whole, generator, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(tries):
        path.write_bytes(mutated(whole, generator))
        try:
            use(path)
        except InputError:
            refused += 1
    assert refused > 0  # the rest was readable still


def zeros(path, megabytes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", bytes(megabytes * 10**6))


@pytest.mark.parametrize(
    ("name", "limit", "write"),
    [
        ("a.csv.gz", "TABLE_BYTES", lambda p: p.write_bytes(gzip.compress(b"a,b\n" * 500_000))),
        ("a.npz", "TABLE_BYTES", lambda p: zeros(p, 2)),
        ("a.parquet", "CELLS", lambda p: parquet(p, a=np.zeros(200_000), b=np.zeros(200_000))),
        ("a.csv", "CELLS", content(b"a,b\n" + b"1,2\n" * 200_000)),
        ("a.csv", "COLUMNS", content(",".join(map(str, range(2000))).encode() + b"\n" + b"1," * 9)),
        ("a.npz", "COLUMNS", lambda p: npz(p, X=np.zeros((2, 2000)))),
        ("a.parquet", "COLUMNS", lambda p: parquet(p, **{f"c{i}": [1.0] for i in range(1200)})),
    ],
)
def test_what_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, name, limit, write):
    for variable, most in (("TABLE_BYTES", 10**6), ("CELLS", 300_000), ("COLUMNS", 1000)):
        monkeypatch.setenv(f"PYRO_VMTL_MAX_{variable}", str(most))
    write(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} has .*PYRO_VMTL_MAX_{limit}="):
        read_table(tmp_path / name)


def test_a_text_that_a_parquet_file_repeats_is_counted(tmp_path):
    """It would take 100 GB."""
    text = pa.array(["x" * 10**6]).dictionary_encode()
    many = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10**5, np.int32)), text.dictionary)
    pq.write_table(pa.table({"t": many, "y": np.arange(10**5)}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 10**7
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="has 100,000,000,000 bytes of table"):
        read_table(tmp_path / "a.parquet")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_names_are_compared_at_once():
    """Each with all others took minutes for 100,000 columns."""
    began = time.monotonic()
    read_table_module._check_names([f"c{i}" for i in range(100_000)], "a.csv")
    assert time.monotonic() - began < 2


def test_text_that_cannot_be_written_is_told(tmp_path):
    for text in ("a\0b", "\ud800"):
        npz(tmp_path / "a.npz", X=np.ones((2, 1)), tasks=np.array([f"{text}.", "b"]))
        with pytest.raises(InputError, match="NUL or half a character in column 'tasks'"):
            read_table(tmp_path / "a.npz")


def test_text_columns_of_parquet_may_be_empty(tmp_path):
    texts = pa.array([None, None], pa.string()), pa.array(["é", None], pa.string())
    pq.write_table(pa.table({"none": texts[0], "some": texts[1]}), tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    assert found["none"].isna().all() and found["some"].tolist() == ["é", pd.NA]
