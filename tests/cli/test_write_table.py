"""Tables of predictions: complete or not there, and told early where they cannot be written."""

from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from typer.testing import CliRunner

from pyro_vmtl.cli.main import app
from pyro_vmtl.cli.read_table import read_table
from pyro_vmtl.cli.user_errors import InputError
from pyro_vmtl.cli.write_table import check_table_path, write_table


def test_a_place_that_cannot_be_written_is_told_before_a_run_is_read(tmp_path):
    (tmp_path / "file").touch()
    for out in ("file/a.csv", "a.xlsx"):
        command = ["predict", str(tmp_path / "no run"), "no table.csv", "--out", tmp_path / out]
        result = CliRunner().invoke(app, [*map(str, command)])
        assert result.exit_code == 2 and Path(out).name in result.stderr
        assert "no run" not in result.stderr


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    table = pd.DataFrame({"a": ["007", None], "b": [0.1, 2.0]}).convert_dtypes()
    path = tmp_path / "a.csv"
    write_table(table, path)
    with pytest.raises(InputError, match="exists already"):
        check_table_path(path, overwrite=False)
    with pytest.raises(InputError, match="unknown format"):
        check_table_path(tmp_path / "a.xlsx", overwrite=False)
    with pytest.raises(InputError, match="is a folder"):
        (tmp_path / "b.csv").mkdir()
        check_table_path(tmp_path / "b.csv", overwrite=True)
    with pytest.raises(InputError, match="cannot be written"):
        write_table(table, path / "below" / "a.csv")
    write_table(table[:1], path)
    assert_frame_equal(read_table(path), table[:1])

    def fail(self, file, index):
        file.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(InputError, match="No space left"):
        write_table(table, path)
    assert_frame_equal(read_table(path), table[:1])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.csv", "b.csv"]
