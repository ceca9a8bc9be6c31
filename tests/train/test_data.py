"""The recipe's section `data` reaches the loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidpipe.errors import UsageError
from vidpipe.train.data import open_train_loader
from vidpipe.train.recipe_data import DataSection


def test_a_recipe_can_select_and_balance(motion_shards: Path) -> None:
    section = DataSection(size=32, batch_size=4, where="label == 1 or label == 2 and clip == 0", balance="class")
    with open_train_loader(motion_shards, section, accumulate=1, device="cpu", seed=0) as loader:
        assert loader.num_samples == 8
        assert {label for batch in loader for label in batch.label.tolist()} == {1, 2}
    with pytest.raises(UsageError, match="no column 'lable'; did you mean label"):
        open_train_loader(
            motion_shards, section.model_copy(update={"where": "lable == 1"}), accumulate=1, device="cpu", seed=0
        )
