"""A table from a CSV or Parquet file as people export them: every cell as text, every row with its line."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow
import pyarrow.parquet

from preprocessing.source import SourceError
from preprocessing.storage import AnyPath, as_path

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq")
MAX_TABLE_BYTES = 512 * 1024 * 1024
_SPREADSHEETS = (".xls", ".xlsx", ".ods", ".numbers")
_SEPARATORS = (",", ";", "\t", "|")
_MAX_LINES = 50
"""A quoted cell that goes on for longer lacks its closing quote."""
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
         (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    where: str
    """Such as ``labels.csv, line 7``: the table and the line in which the row starts, counted from 1."""
    cells: tuple[str, ...]
    """As many as the table has columns; stripped, empty where the cell is missing."""
    fault: str = ""
    """Why the row cannot be used as it stands."""


@dataclass(frozen=True)
class Table:
    """A table of text."""

    name: str
    header: tuple[str, ...]
    """Names of the columns; empty for a listing without a header."""
    rows: tuple[Row, ...]

    def without_header(self) -> "Table":
        """The same table, its first line taken as a row."""
        width = len(self.header)
        return Table(self.name, (), (Row(f"{self.name}, line 1", self.header), *self.rows)) if width else self


def read_table(path: AnyPath) -> Table:
    """Read a CSV (four separators, with or without a byte order mark, UTF-8, UTF-16 or Windows-1252) or a Parquet file.

    A row that has more cells than the header, or a quote that is not closed, is kept with its fault; the rows after it
    are read all the same.

    Raises:
        SourceError: No such file, or nothing in it can be a table.
    """
    suffix = path.suffix.lower()
    if suffix in _SPREADSHEETS:
        raise SourceError(f"A table must be CSV or Parquet, got the spreadsheet {path.name}. Save it as CSV.")
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise SourceError(f"A table may have {MAX_TABLE_BYTES:,} bytes, {path.name} has more. Split it.")
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"The table {path} cannot be read ({type(error).__name__}). Check its path.") from None
    if data[:4] == b"PAR1":
        return _read_parquet(data, path.name)
    return parse_csv(data, path.name)


def beside(root: AnyPath, name: str | AnyPath) -> AnyPath:
    """A file named on the command line: as it stands, else below the folder."""
    path = as_path(name)
    return path if path.exists() or not (root / str(name)).exists() else root / str(name)


def parse_csv(data: bytes, name: str) -> Table:
    """Parse the bytes of a CSV; see `read_table`."""
    lines = [line for line in re.split(r"(?<=\n)|(?<=\r)(?!\n)", _decoded(data)) if line]
    separator, first = _separator(lines)
    records = list(_records(lines, separator, first))
    if not records or not any(cell.strip() for cell in records[0][1]):
        raise SourceError(f"{name} is not a table: it has no header. Export it again.")
    if not _width(lines[first], separator):
        raise SourceError(f"{name} is not a table: its header has a cell of more than 128 KiB. Export it again.")
    header = tuple(cell.strip() for cell in records[0][1])
    while header and not header[-1]:  # a separator at the end of every line
        header = header[:-1]
    rows = (_row(name, *record, len(header)) for record in records[1:] if record[2] or any(map(str.strip, record[1])))
    return Table(name, header, tuple(rows))


def _row(name: str, number: int, cells: list[str], fault: str, width: int) -> Row:
    stripped = [cell.replace("\xa0", " ").strip() for cell in cells]
    if not fault and any(stripped[width:]):
        fault = f"The row has {len(stripped)} cells, the header {width}. Quote cells that hold the separator."
    return Row(f"{name}, line {number}", tuple((stripped + [""] * width)[:width]), fault)


def _decoded(data: bytes) -> str:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")  # what spreadsheets on Windows write


def _separator(lines: list[str]) -> tuple[str, int]:
    """The separator, and the number of the line that holds the header."""
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    if not lines:
        return ",", 0
    if told := re.fullmatch(r"sep=(.)\s*", lines[first], re.IGNORECASE):
        return told[1], first + 1
    return max(_SEPARATORS, key=lambda mark: _width(lines[first], mark)), first


def _width(line: str, separator: str) -> int:
    """Cells of a line; 0 where one is longer than the parser takes."""
    try:
        return len(next(csv.reader([line], delimiter=separator), []))
    except csv.Error:
        return 0


def _records(lines: list[str], separator: str, first: int) -> Iterator[tuple[int, list[str], str]]:
    """Line number, cells and fault of each record; a quote that is not closed costs its own line and no other."""
    at, start, width, ended = first, first, 0, False

    def feed() -> Iterator[str]:  # the parser asks for a second line only inside a quote
        nonlocal at, ended
        while at < len(lines) and at - start < _MAX_LINES:
            at += 1
            yield lines[at - 1]
        ended = True

    while at < len(lines):
        start, ended = at, False
        try:
            cells = next(csv.reader(feed(), delimiter=separator), [])
        except csv.Error:  # a cell of more than 128 KiB
            cells, ended = [], True
        if not ended and (at == start + 1 or not width or len(cells) == width):
            width = width or len(cells)
            yield start + 1, cells, ""
            continue
        at = start + 1
        bare = lines[start].replace('"', "").rstrip("\r\n").split(separator)
        yield start + 1, bare, "A quote in the row is not closed."


def _read_parquet(data: bytes, name: str) -> Table:
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
        columns = [[_text(value) for value in column.to_pylist()] for column in table.columns]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{name} is no readable Parquet file ({type(error).__name__}). Export it again.") from None
    rows = (Row(f"{name}, row {i}", cells) for i, cells in enumerate(zip(*columns, strict=True), start=1))
    return Table(name, tuple(str(column).strip() for column in table.column_names), tuple(rows))


def _text(value: object) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return str(value).strip()
