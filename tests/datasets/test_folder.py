from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidpipe.datasets import Video
from vidpipe.datasets.folder import Folder
from vidpipe.errors import DatasetError

Make = Callable[..., Path]


def test_class_folders_are_all_train_and_deeper_files_belong_to_their_class(make_files: Make) -> None:
    source = make_files(
        *("run/b.mp4", "run/morning/2/a.MKV", "brush hair/-x 'y'\n.avi"),
        *("run/README", "run/b.gif", "run/c.GIF", "run/.hidden.mp4"),
    )
    listing = Folder().scan(source)
    assert listing.classes == ("brush hair", "run")
    assert listing.videos == (
        Video("brush hair/-x 'y'\n.avi", "brush hair", "train"),
        Video("run/b.mp4", "run", "train"),
        Video("run/morning/2/a.MKV", "run", "train"),
    )
    assert listing.counts["other_files"] == 3
    assert listing.notes == (
        "3 files are left out, as their extensions are no video's: 2 with .gif, 1 with no extension",
    )
    assert listing.counts["extra_videos"] == 0
    assert listing.root == source.resolve()


def test_split_folders_are_recognised_by_their_usual_names(make_files: Make) -> None:
    source = make_files("training/run/a.mp4", "Validation/run/b.mp4", "test/jump/c.mp4", "test/jump/readme.md")
    listing = Folder().scan(source)
    assert [(video.path, video.split) for video in listing.videos] == [
        ("test/jump/c.mp4", "test"),
        ("training/run/a.mp4", "train"),
        ("Validation/run/b.mp4", "val"),
    ]
    assert listing.splits == ("train", "val", "test")
    assert listing.classes == ("jump", "run")


def test_a_class_may_have_the_name_of_a_split(make_files: Make) -> None:
    assert Folder().scan(make_files("train/a.mp4", "plane/b.mp4")).classes == ("plane", "train")
    assert Folder(layout="class").scan(make_files("train/x/a.mp4", "val/x/b.mp4")).classes == ("plane", "train", "val")


def test_a_layout_that_could_be_either_is_refused(make_files: Make) -> None:
    source = make_files("train/run/a.mp4", "more/run/b.mp4")
    with pytest.raises(DatasetError, match="set layout to split or class"):
        Folder().scan(source)
    assert Folder(layout="split").scan(source).splits == ("train", "more")


def test_splits_without_class_folders_are_not_taken_for_classes(make_files: Make) -> None:
    source = make_files("train/a.mp4", "val/b.mp4")
    with pytest.raises(DatasetError, match=r"train, val look like splits.*SPLIT/CLASS/video.mp4.*layout to class"):
        Folder().scan(source)
    assert Folder(layout="class").scan(source).classes == ("train", "val")


@pytest.mark.parametrize(
    ("files", "advice"),
    [
        (("data/train/run/a.mp4", "data/val/run/b.mp4"), "'data/train'; .*: name .*/source/data with --source"),
        (("run/train/a.mp4", "jump/test/b.mp4", "jump/c.mp4"), "'jump/test'; expected SPLIT/CLASS/video.mp4, or"),
    ],
)
def test_splits_below_the_first_folders_are_not_mixed(make_files: Make, files: tuple[str, ...], advice: str) -> None:
    source = make_files(*files)
    with pytest.raises(DatasetError, match=f"{advice}.*--set layout=class"):
        Folder().scan(source)
    assert Folder(layout="class").scan(source).splits == ("train",)
    assert Folder().scan(make_files("vehicles/train/d.mp4", "vehicles/bus/e.mp4")).classes  # one that is not all splits


def test_class_folders_without_videos_are_named(make_files: Make) -> None:
    source = make_files("train/run/deep/a.mp4", "train/jump/notes.txt", "val/run/b.mp4", "lists/x/splits.txt")
    (source / "val" / "swim").mkdir()
    listing = Folder().scan(source)
    assert listing.classes == ("run",)
    assert listing.counts["folders_without_videos"] == 2
    assert "2 folders hold no video, so that they are no classes; the first is 'train/jump'" in listing.notes


def test_classes_that_train_lacks_are_named(make_files: Make) -> None:
    listing = Folder().scan(make_files("train/run/a.mp4", "val/run/b.mp4", "val/jump/c.mp4"))
    assert listing.notes == ("1 classes have videos, but none in train to learn from; the first is 'jump'",)
    assert Folder().scan(make_files("train/jump/d.mp4")).notes == ()


def test_videos_outside_class_folders_are_counted_and_named(make_files: Make) -> None:
    listing = Folder().scan(make_files("run/a.mp4", "stray.mp4"))
    assert len(listing.videos) == 1
    assert listing.counts["without_class"] == 1
    assert "stray.mp4" in listing.notes[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [((), "no video files"), (("labels.csv",), "no video files"), (("a.mp4",), "lie in no class folder")],
)
def test_a_folder_without_usable_videos_is_refused(make_files: Make, files: tuple[str, ...], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        Folder().scan(make_files(*files))


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        Folder().scan(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="is a file"):
        Folder().scan(tmp_path / "file")


def test_a_class_list_gives_the_label_order_and_refuses_others(make_files: Make) -> None:
    source = make_files("run/a.mp4", "jump/b.mp4")
    (source / "order.txt").write_bytes(b"\xef\xbb\xbfrun\r\nswim\r\njump\r\n\r\n")
    listing = Folder(classes="order.txt").scan(source)
    assert listing.classes == ("run", "swim", "jump")
    assert listing.counts["classes_without_videos"] == 1
    (source / "order.txt").write_text("run\njumping\n")
    with pytest.raises(DatasetError, match=r"'jump'.*'jump/b.mp4'.*did you mean jumping"):
        Folder(classes="order.txt").scan(source)
    (source / "order.txt").write_text("run\njump\nrun\n")
    with pytest.raises(DatasetError, match="line 3: class 'run' stands already in line 1"):
        Folder(classes="order.txt").scan(source)
    with pytest.raises(DatasetError, match="classes: no file"):
        Folder(classes="absent.txt").scan(source)


def test_links_are_followed_inside_the_source_and_refused_outside(make_files: Make, tmp_path: Path) -> None:
    source = make_files("run/a.mp4", "deep/x/jump/b.mp4")
    (source / "jump").symlink_to("deep/x/jump")
    (source / "run/again.mp4").symlink_to("a.mp4")
    (source / "run/loop").symlink_to("..")
    (source / "run/broken.mp4").symlink_to("absent.mp4")
    (source / "run/self.mp4").symlink_to("self.mp4")
    paths = [video.path for video in Folder().scan(source).videos]
    assert "jump/b.mp4" in paths
    assert "run/again.mp4" in paths
    assert len(paths) < 10
    assert not any("loop" in path for path in paths)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.mp4").touch()
    (source / "run/secret.mp4").symlink_to(outside / "secret.mp4")
    with pytest.raises(DatasetError, match="outside the source folder"):
        Folder().scan(source)
    (source / "run/secret.mp4").unlink()
    (source / "stolen").symlink_to(outside)
    with pytest.raises(DatasetError, match="outside the source folder"):
        Folder().scan(source)
    allowed = Folder(link_targets=(str(outside),))
    assert "stolen/secret.mp4" in [video.path for video in allowed.scan(source).videos]
    assert str(outside) not in allowed.model_dump_json()
    (source / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(DatasetError, match="elsewhere"):
        allowed.scan(source)


def test_a_video_that_links_bring_into_another_split_is_noted(make_files: Make, tmp_path: Path) -> None:
    source = make_files("train/run/a.mp4", "train/swim/b.mp4", "train/swim/c.mp4", "val/run/d.mp4")
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "e.mp4").touch()
    (source / "train/run/again.mp4").symlink_to("a.mp4")
    (source / "train/jump").symlink_to(disk)
    folder = Folder(link_targets=(str(disk),))
    assert "in_several_splits" not in folder.scan(source).counts
    (source / "val/run/x.mp4").symlink_to("../../train/run/a.mp4")
    (source / "val/swim").symlink_to(source / "train/swim")
    (source / "val/jump").symlink_to("../train/jump")
    listing = folder.scan(source)
    assert listing.counts["in_several_splits"] == 4
    assert any("4 videos stand in more than one split" in note for note in listing.notes)


def test_links_that_lead_nowhere_are_missing_videos_and_never_go_unsaid(make_files: Make) -> None:
    source = make_files("run/a.mp4", "jump/b.mp4")
    (source / "run/gone.mp4").symlink_to("/unmounted/gone.mp4")
    (source / "run/self.mp4").symlink_to("self.mp4")
    (source / "run/notes.txt").symlink_to("/unmounted/notes.txt")
    listing = Folder().scan(source)
    assert [video.path for video in listing.videos] == ["jump/b.mp4", "run/a.mp4"]
    assert [video.path for video in listing.missing] == ["run/gone.mp4", "run/self.mp4"]
    assert (listing.counts["missing"], listing.counts["broken_links"]) == (2, 1)
    assert any("links lead nowhere" in note and "run/notes.txt" in note for note in listing.notes)
    (source / "swim").symlink_to("/unmounted/swim")
    with pytest.raises(DatasetError, match=r"'swim' is a link to /unmounted/swim.*bring it back"):
        Folder().scan(source)


def test_file_names_that_are_not_utf8_survive(make_files: Make) -> None:
    source = make_files("run/a.mp4")
    name = b"caf\xe9.mp4"
    (source / "run" / name.decode("utf-8", "surrogateescape")).touch()
    paths = [video.path for video in Folder().scan(source).videos]
    assert "run/caf\udce9.mp4" in paths
    assert all((source / path).is_file() for path in paths)
