"""Reading annotation files as they come: CRLF, byte order marks, quotes, and bytes that are not UTF-8."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vidpipe.errors import DatasetError


def read_text(path: Path) -> str:
    """A text file; bytes that are not UTF-8 become surrogates (PEP 383), so that paths still match the files' names.

    Raises:
        DatasetError: it can't be read.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: can't be read: {error.strerror}") from error
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", errors="replace")
    return raw.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="surrogateescape")


def read_lines(path: Path) -> list[tuple[int, str]]:
    r"""(line number, text) of the lines that are not blank; only `\n`, `\r\n` and `\r` end a line."""
    lines = io.StringIO(read_text(path), newline=None).read().split("\n")
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def read_csv(path: Path, *, required: Sequence[str], delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file with a header, each with the place it came from (`labels.csv line 3`).

    Column names are compared without case and outer spaces; values are as they stand; the last ones of a row may be
    left out.

    Raises:
        DatasetError: a required column is missing from the header, a row has too many values, or quotes don't match.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    first_line = 1
    try:
        for row in reader:
            where = f"{path.name} line {first_line}"
            first_line = reader.line_num + 1
            if not any(value.strip() for value in row):
                continue
            if header is None:
                header = _header(row, path=path, required=required, delimiter=delimiter)
            elif len(row) > len(header):
                raise DatasetError(
                    f"{where}: {len(row)} values, but the header has {len(header)} columns "
                    f"({delimiter.join(header)}); put quotes around values that hold {delimiter!r}"
                )
            else:
                padded = [*row, *[""] * (len(header) - len(row))]
                yield where, dict(zip(header, padded, strict=True))
    except csv.Error as error:
        raise DatasetError(f"{path.name} line {first_line}: not valid CSV: {error}; check its quotes") from error
    if header is None:
        raise DatasetError(f"{path}: empty; expected a header line with {delimiter.join(required)}")


def _header(row: list[str], *, path: Path, required: Sequence[str], delimiter: str) -> list[str]:
    header = [name.strip().lower() for name in row]
    lacking = [name for name in required if name not in header]
    if lacking:
        raise DatasetError(
            f"{path}: the header line lacks {', '.join(lacking)}; expected columns {delimiter.join(required)}, "
            f"got {delimiter.join(row)!r}"
        )
    if len(set(header)) < len(header):
        raise DatasetError(f"{path}: a column stands twice in the header {delimiter.join(row)!r}")
    return header


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        DatasetError: it is not valid JSON.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise DatasetError(f"{path}: not valid JSON: {error}") from error


def clean_label(text: str) -> str:
    r"""A label without outer spaces, its bytes that are not UTF-8 written as `\xNN`: fit for JSON and for screens."""
    return text.strip().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
