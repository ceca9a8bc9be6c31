"""MSR DailyActivity3D: activity, subject and take stand in the files' names."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field

from vidpipe.datasets.base import DatasetFormat, Listing
from vidpipe.datasets.listing import ListingBuilder
from vidpipe.datasets.tree import SourceTree
from vidpipe.errors import DatasetError

_FILE = re.compile(r"a(?P<activity>\d\d)_s(?P<subject>\d\d)_e(?P<take>\d\d)_rgb\.\w+", re.IGNORECASE)
_CLIPS = 320

#: The activities in the order of their numbers, which begin at 1.
ACTIVITIES = (
    "drink",
    "eat",
    "read book",
    "call cellphone",
    "write on a paper",
    "use laptop",
    "use vacuum cleaner",
    "cheer up",
    "sit still",
    "toss paper",
    "play game",
    "lie down on sofa",
    "walk",
    "play guitar",
    "stand up",
    "sit down",
)


class MSRDailyActivity3D(DatasetFormat):
    """MSR DailyActivity3D: colour videos aNN_sNN_eNN_rgb.avi; train_subjects says who is train, the others are val.

    There is no official split.

    Attributes:
        train_subjects: numbers of the people in train, out of 1 to 10; by default the 80 % of the original experiment.
    """

    train_subjects: tuple[Annotated[int, Field(ge=1, le=10)], ...] = (1, 2, 3, 4, 5, 6, 7, 8)

    def scan(self, source: Path) -> Listing:
        """Read the names; the label is the activity's number less one."""
        tree = SourceTree(source, self.link_targets)
        builder = ListingBuilder(tree, classes=self.classes)
        clips: set[str] = set()
        for path in tree.named_videos:
            name = PurePosixPath(path).name
            match = _FILE.fullmatch(name)
            if match is None:
                continue
            activity, subject = int(match["activity"]), int(match["subject"])
            if not 1 <= activity <= len(ACTIVITIES) or not 1 <= subject <= 10:
                raise DatasetError(
                    f"source {tree.root}: {path!r}: expected activities a01 to a16 and subjects s01 to s10"
                )
            clip = name.lower().rpartition("_")[0]
            if clip in clips:
                raise DatasetError(
                    f"source {tree.root}: {path!r}: this clip is in another file too; remove one of them"
                )
            clips.add(clip)
            split = "train" if subject in self.train_subjects else "val"
            builder.add(path, ACTIVITIES[activity - 1], split=split, where=repr(path))
        if not clips:
            raise DatasetError(f"source {tree.root}: no colour videos in it; expected names like a01_s01_e01_rgb.avi")
        builder.note(f"train has the subjects {', '.join(map(str, sorted(set(self.train_subjects))))}; val the others")
        if len(clips) != _CLIPS:
            builder.note(f"{len(clips)} clips found; the whole data set has {_CLIPS}")
        return builder.build(classes=ACTIVITIES)
