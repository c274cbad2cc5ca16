"""Tables as spreadsheets, statistics packages and people export them."""

import contextlib
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.source import SourceError
from preprocessing.table import parse_csv, read_table

CELL = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\xa0\u2028\u2029\x85"), max_size=8
)


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.lists(CELL, min_size=3, max_size=3), max_size=8),
    separator=st.sampled_from(",;\t|"),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    trailing=st.booleans(),
)
def test_every_cell_and_line_number_survives_any_dialect(
    rows: list[list[str]], separator: str, newline: str, encoding: str, trailing: bool
) -> None:
    lines = [separator.join(map(quoted, row)) + separator * trailing for row in [["id", "boneage", "male"], *rows]]
    table = parse_csv(newline.join(lines).encode(encoding), "labels.csv")
    assert table.header == ("id", "boneage", "male")
    expected = [
        (f"labels.csv, line {i}", tuple(cell.strip() for cell in row))
        for i, row in enumerate(rows, start=2)
        if any(cell.strip() for cell in row)
    ]
    assert [(row.where, row.cells) for row in table.rows] == expected
    assert not any(row.fault for row in table.rows)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_table_or_a_sentence(data: bytes) -> None:
    with contextlib.suppress(SourceError):
        table = parse_csv(data, "labels.csv")
        assert all(len(row.cells) == len(table.header) for row in table.rows)


@settings(max_examples=100, deadline=None)
@given(bad=st.integers(0, 19))
def test_an_open_quote_costs_its_own_row_only(bad: int) -> None:
    rows = [f"{i},{100 + i},True" for i in range(20)]
    rows[bad] = f'{bad},"100,True'
    table = parse_csv("\n".join(["id,boneage,male", *rows]).encode(), "labels.csv")
    assert len(table.rows) == 20
    assert [row.where for row in table.rows if row.fault] == [f"labels.csv, line {bad + 2}"]


def test_a_cell_may_hold_a_line_break() -> None:
    table = parse_csv(b'id,note,male\n1,"two\nlines",True\n2,one,False\n', "labels.csv")
    assert [row.where for row in table.rows] == ["labels.csv, line 2", "labels.csv, line 4"]
    assert table.rows[0].cells[1] == "two\nlines"


def test_a_windows_file_keeps_its_letters() -> None:
    assert parse_csv("id;Geschlecht\n1;männlich\n".encode("cp1252"), "a.csv").rows[0].cells == ("1", "männlich")


def test_a_row_with_too_many_cells_says_so() -> None:
    row = parse_csv(b"id,boneage,male\n7,8,5,True\n", "labels.csv").rows[0]
    assert "4 cells" in row.fault


def test_parquet_keeps_large_numbers_beside_missing_ones(tmp_path: Path) -> None:
    ids = pd.array([2**62 + 1, None, 7], dtype="Int64")
    frame = pd.DataFrame({"id": ids, "boneage": [1.5, float("nan"), 3.0], "male": [True, None, False]})
    frame.to_parquet(tmp_path / "labels.parquet")
    table = read_table(tmp_path / "labels.parquet")
    assert [row.cells for row in table.rows] == [(str(2**62 + 1), "1.5", "True"), ("", "", ""), ("7", "3.0", "False")]
    assert table.rows[2].where == "labels.parquet, row 3"


@pytest.mark.parametrize("name", ["labels.xlsx", "missing.csv", "broken.parquet", "empty.csv", "log.csv", "told.csv"])
def test_what_is_no_table_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "labels.xlsx").write_bytes(b"PK\3\4")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "log.csv").write_bytes(b'"' + b"x," * 100_000 + b'"\n')
    (tmp_path / "told.csv").write_bytes(b"sep=;\n" + b"x" * 200_000)
    with pytest.raises(SourceError, match=name):
        read_table(tmp_path / name)


def test_a_table_of_very_many_columns_is_read() -> None:
    header = "\t".join(f"column {i}" for i in range(20_000))
    table = parse_csv(f"{header}\n".encode(), "labels.csv")
    assert len(header) > 128 * 1024
    assert len(table.header) == 20_000


def test_a_long_table_is_read_in_one_pass() -> None:
    body = io.BytesIO(b"id,boneage,male\n" + b"".join(b'%d,"100",True\n' % i for i in range(20_000)))
    assert len(parse_csv(body.getvalue(), "labels.csv").rows) == 20_000
