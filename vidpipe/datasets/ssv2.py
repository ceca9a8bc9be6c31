"""Something-Something v2: JSON annotations and ID.webm files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import Field

from vidpipe.datasets.annotations import Findings, clean_label, read_json
from vidpipe.datasets.base import DatasetFormat, Listing
from vidpipe.datasets.listing import ListingBuilder
from vidpipe.datasets.tree import SourceTree
from vidpipe.errors import DatasetError

_TABLE = r"(?:something-something-v2-)?(labels|train|validation|test)\.json"


class SSv2(DatasetFormat):
    """Something-Something v2: labels.json, train.json, validation.json, test.json and ID.webm files in any folder.

    The JSON files may also be named something-something-v2-*.json.

    Attributes:
        annotations: folder of the JSON files; by default they are looked for in the source folder.
        num_classes: what is expected, for a warning.
    """

    annotations: str | None = None
    num_classes: int | None = Field(None, ge=1)

    def scan(self, source: Path) -> Listing:
        """Look each video's template up in the labels; their numbers there are the label order."""
        tree = SourceTree(source, self.link_targets)
        tables = tree.tables(_TABLE, annotations=self.annotations)
        if "labels" not in tables or len(tables) < 2:
            raise DatasetError(
                f"source {tree.root}: expected labels.json and train.json, validation.json or test.json in it "
                f"(or something-something-v2-*.json), got {', '.join(path.name for path in tables.values()) or 'none'}; "
                "`annotations` can name their folder"
            )
        builder = ListingBuilder(tree, classes=self.classes)
        classes = _read_classes(tables["labels"], builder)
        files = tree.videos_by(lambda path: PurePosixPath(path).stem)
        for split in ("train", "val", "test"):
            for where, video_id, label in _read_videos(tables[split], classes, builder) if split in tables else ():
                path = files.get(video_id, [f"{video_id}.webm"])[0]
                builder.add(path, label, split=split, where=where)
        builder.ignore_tables(tables.values())
        return builder.build(classes=classes, expected_classes=self.num_classes)


def _read_classes(path: Path, findings: Findings) -> list[str]:
    """Class names in the order of their numbers."""
    raw = read_json(path, findings)
    if not isinstance(raw, dict) or not raw:
        raise DatasetError(f"{path}: expected an object of template to number")
    try:
        numbers = {clean_label(template): int(number) for template, number in raw.items()}
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{path}: expected a number for each template: {error}") from error
    if sorted(numbers.values()) != list(range(len(raw))):
        raise DatasetError(f"{path}: its {len(raw)} numbers are not 0 to {len(raw) - 1}, once each")
    return sorted(numbers, key=lambda name: numbers[name])


def _read_videos(path: Path, classes: list[str], findings: Findings) -> Iterator[tuple[str, str, str | None]]:
    """(where, id, class name) of each entry; test entries have no template."""
    raw = read_json(path, findings)
    if not isinstance(raw, list):
        raise DatasetError(f"{path}: expected a list of objects with id and template")
    known = {_plain(name): name for name in classes}
    for number, entry in enumerate(raw, start=1):
        where = f"{path.name} entry {number}"
        video_id = str(entry.get("id", "")).strip() if isinstance(entry, dict) else ""
        if not video_id:
            findings.bad_row(where, f"expected an object with the video's id, got {str(entry)[:80]!r}")
            continue
        if "/" in video_id or "\0" in video_id or video_id in {".", ".."}:
            raise DatasetError(f"{where}: id {video_id!r}: expected the name of a file without its extension")
        template = None if entry.get("template") is None else str(entry["template"])
        # An unknown template goes on as it stands, for the class list to refuse with the nearest names.
        label = known.get(_plain(template), template.replace("[", "").replace("]", "")) if template else None
        yield where, video_id, label


def _plain(template: str) -> str:
    return " ".join(template.replace("[", "").replace("]", "").casefold().split())
