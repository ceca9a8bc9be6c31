"""Reading annotation files as they come: CRLF, byte order marks, quotes, and bytes that are not UTF-8.

One rule for all formats: a row that can't be read by itself is bad, which is counted, and left out; what makes more than one
row doubtful, or contradicts another row, the class list or the source folder, is a DatasetError.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from vidpipe.datasets.tree import is_video
from vidpipe.errors import DatasetError

DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}
"""Those that may be given by name."""


class Findings(Protocol):
    """Who is told what annotation files are like."""

    def count(self, name: str, number: int = 1) -> None:
        """Add to the findings of that name."""

    def bad_row(self, where: str, problem: str) -> None:
        """A row is left out, because of what a sentence for people says."""


def read_text(path: Path, findings: Findings) -> str:
    """A text file; bytes that are not UTF-8 become surrogates (PEP 383), so that paths still match the files' names.

    Raises:
        DatasetError: it can't be read.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: can't be read: {error.strerror}") from error
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF8)):
        findings.count("byte_order_marks")
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", errors="replace")
    text = raw.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="surrogateescape")
    findings.count("lines_not_utf8", sum(not _is_utf8(line) for line in text.split("\n")))
    findings.count("crlf_lines", text.count("\r\n"))
    return text


def _is_utf8(line: str) -> bool:
    return line.isascii() or not _SURROGATE.search(line)


_SURROGATE = re.compile("[\udc80-\udcff]")


def read_lines(path: Path, findings: Findings) -> list[tuple[int, str]]:
    r"""(line number, text) of the lines that are not blank; only `\n`, `\r\n` and `\r` end a line."""
    lines = io.StringIO(read_text(path, findings), newline=None).read().split("\n")
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def read_csv(
    path: Path, findings: Findings, *, required: Sequence[str], delimiter: str = ","
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file with a header, each with the place it came from (`labels.csv line 3`).

    Column names are compared without case and outer spaces; values are as they stand, but for spaces around quotes; the last
    ones of a row may be left out. A row is bad if it has more values than the header, not counting empty ones at its end, or
    quotes that don't match.

    Raises:
        DatasetError: a required column is missing from the header, or quotes don't match in such a way that it can't be told
            how many rows are concerned.
    """
    header: list[str] | None = None
    for where, row in _csv_rows(path, findings, delimiter):
        if header is None:
            header = _header(row, path=path, required=required, delimiter=delimiter)
            continue
        values = [value for place, value in enumerate(row) if place < len(header) or value.strip()]
        if len(values) > len(header):
            problem = f"{len(values)} values, but the header has {len(header)} columns ({delimiter.join(header)})"
            findings.bad_row(where, f"{problem}; put quotes around values that hold {delimiter!r}")
        else:
            yield where, dict(zip(header, [*values, *[""] * (len(header) - len(values))], strict=True))
    if header is None:
        raise DatasetError(f"{path}: empty; expected a header line with {delimiter.join(required)}")


def _csv_rows(path: Path, findings: Findings, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    text = read_text(path, findings)
    if delimiter != " ":
        text, num_quoted = _tight_quotes(text, delimiter)
        findings.count("quoted_values", num_quoted)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    num_rows = 0
    while True:
        where = f"{path.name} line {reader.line_num + 1}"
        before = reader.line_num
        try:
            row = next(reader, None)
        except csv.Error as error:
            problem = f"not valid CSV: {error}; check its quotes"
            if not num_rows:
                raise DatasetError(f"{where}: {problem}, and that its values are parted by {delimiter!r}") from error
            if reader.line_num > before + 1:
                raise DatasetError(f"{where}: {problem}, which don't end in this line") from error
            findings.bad_row(where, problem)
            continue
        if row is None:
            return
        if any(value.strip() for value in row):
            num_rows += 1
            yield where, row


def _tight_quotes(text: str, delimiter: str) -> tuple[str, int]:
    """The text of a CSV file without the spaces around quoted values, and how many of these there are."""
    edge = re.escape(delimiter)
    return re.subn(rf'(^|{edge}) *("(?:[^"]|"")*+") *(?={edge}|[\r\n]|\Z)', r"\1\2", text, flags=re.MULTILINE)


def _header(row: list[str], *, path: Path, required: Sequence[str], delimiter: str) -> list[str]:
    header = [name.strip().lower() for name in row]
    lacking = [name for name in required if name not in header]
    if lacking:
        raise DatasetError(
            f"{path}: the header line lacks {', '.join(lacking)}; expected columns {delimiter.join(required)}, "
            f"got {delimiter.join(row)!r}; {_header_advice(row, required=required, delimiter=delimiter)}"
        )
    named = [name for name in header if name]
    if len(set(named)) < len(named):
        raise DatasetError(f"{path}: a column stands twice in the header {delimiter.join(row)!r}")
    return header


def _header_advice(row: Sequence[str], *, required: Sequence[str], delimiter: str) -> str:
    line = delimiter.join(row).lower()
    for name, other in DELIMITERS.items():
        if other != delimiter and set(required) <= {column.strip(' "') for column in line.split(other)}:
            return f"its columns are parted by {name}: set delimiter={name} (recipe csv), or part them by {delimiter!r}"
    if any(is_video(value.strip()) for value in row):
        return "the first line is a row already: put a header line before it, or use the recipe list, which takes none"
    return "rename its columns"


def read_json(path: Path, findings: Findings) -> Any:
    """A JSON file.

    Raises:
        DatasetError: it is not valid JSON.
    """
    try:
        return json.loads(read_text(path, findings))
    except ValueError as error:
        raise DatasetError(f"{path}: not valid JSON: {error}") from error


def clean_label(text: str) -> str:
    r"""A label without outer spaces, its bytes that are not UTF-8 written as `\xNN`: fit for JSON and for screens."""
    return text.strip().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
