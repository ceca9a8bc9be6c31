"""The tables of a page about the experiments, made anew from their report."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from vidpipe.bench.experiments.definitions import EXPERIMENTS
from vidpipe.bench.experiments.results import ExperimentsReport
from vidpipe.bench.reports import write_json
from vidpipe.errors import UsageError
from vidpipe.files import whole_file

FIGURES = Path("figures/experiments.json")
"""Where a page's numbers lie, from the page's folder."""


def renew_page(page: Path, report: ExperimentsReport) -> None:
    """Put a report's tables into a page, and its numbers beside it, into `FIGURES`.

    A table belongs to the experiment that its first cell names. Experiments that the report lacks keep theirs, and their numbers.

    Raises:
        UsageError: the page lacks the table of an experiment.
    """
    figures = page.parent / FIGURES
    if figures.is_file():
        report = _merged(read_figures(figures), report)
    text = renewed(page.read_text("utf-8"), report, where=str(page))
    write_json(figures, report.to_json())
    with whole_file(page) as stream:
        stream.write(text.encode())


def read_figures(path: Path) -> ExperimentsReport:
    """The report that a file of figures holds."""
    content = json.loads(path.read_bytes())
    return ExperimentsReport.model_validate({"results": content["results"]})


def renewed(text: str, report: ExperimentsReport, *, where: str) -> str:
    """A page's text with a report's tables.

    Raises:
        UsageError: a table is not there.
    """
    for name in report.experiments:
        head, *rows = report.rows(name)
        lines = [_line(head), _line(["---"] * len(head)), *map(_line, rows)]
        found = re.findall(rf"^\| {re.escape(name)} \|.*\n(?:\|.*\n)*", text, re.MULTILINE)
        if len(found) != 1:
            raise UsageError(f"{where}: {len(found)} tables begin with `| {name} |`, expected one")
        text = text.replace(found[0], "\n".join(lines) + "\n")
    return text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _merged(old: ExperimentsReport, new: ExperimentsReport) -> ExperimentsReport:
    others = EXPERIMENTS.keys() - set(new.experiments)
    kept = tuple(result for result in old.results if result.experiment in others)
    return ExperimentsReport(results=(*kept, *new.results))
