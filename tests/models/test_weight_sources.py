"""Where weights come from: names in timm, torchvision and on the hub, files, runs of our own; what does not fit is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from models.checkpoints import image_vit, same, saved
from models.narrow import narrow_model
from safetensors.torch import save_file
from torch import Tensor

from vidpipe.errors import CheckpointError
from vidpipe.models.init import load_pretrained
from vidpipe.models.trained_on import trained_normalization


def test_a_name_in_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    vit = image_vit()
    asked: dict[str, Any] = {}
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.update(name=name, **options) or vit)
    model = narrow_model("vivit")
    load_pretrained(model, "timm:vit_tiny_patch16_224.augreg_in21k")
    assert asked == {"name": "vit_tiny_patch16_224.augreg_in21k", "pretrained": True}
    assert same(model, "spatial.blocks.1.mlp.fc1.weight", vit.blocks[1].mlp.fc1.weight)


def test_a_name_in_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    source = narrow_model("r2plus1d")
    official = {key.removeprefix("trunk."): tensor for key, tensor in source.state_dict().items()}

    class Weights:
        def get_state_dict(self, **_: Any) -> dict[str, Tensor]:
            return official

    asked = []
    known = type("R2Plus1D_18_Weights", (), {"DEFAULT": Weights()})
    monkeypatch.setattr(models, "get_model_weights", lambda name: asked.append(name) or known)
    model = narrow_model("r2plus1d")
    assert not load_pretrained(model, "torchvision:r2plus1d_18").fresh
    assert asked == ["r2plus1d_18"]
    assert same(model, "trunk.layer4.0.conv1.0.0.weight", source.trunk.layer4[0].conv1[0][0].weight)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="torchvision has no such model"):
        load_pretrained(model, "torchvision:r2plus1d_19")


def test_a_repository_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    vit = image_vit()
    save_file(vit.state_dict(), tmp_path / "model.safetensors")

    def download(repository: str, file: str) -> str:
        assert repository == "timm/vit"
        if not (tmp_path / file).exists():
            raise EntryNotFoundError(file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for source in ("hub:timm/vit", "hub:timm/vit/model.safetensors"):
        model = narrow_model("vivit")
        load_pretrained(model, source)
        assert same(model, "spatial.blocks.1.mlp.fc1.weight", vit.blocks[1].mlp.fc1.weight)
    with pytest.raises(CheckpointError, match="the repository has no file other"):
        load_pretrained(narrow_model("vivit"), "hub:timm/vit/other.pth")


def test_a_hub_that_is_out_of_reach_is_not_taken_for_one_without_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(repository: str, file: str) -> str:
        if not (tmp_path / file).exists():
            raise LocalEntryNotFoundError("outgoing traffic has been disabled")
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for source in ("hub:timm/vit", "hub:timm/vit/model.safetensors"):
        with pytest.raises(
            CheckpointError, match=r"can't be fetched \(LocalEntryNotFoundError: outgoing.*a file's path"
        ):
            load_pretrained(narrow_model("vivit"), source)
    (tmp_path / "model.safetensors").write_text("nonsense")
    with pytest.raises(CheckpointError, match="can't be read"):
        load_pretrained(narrow_model("vivit"), "hub:timm/vit")
    save_file(image_vit().state_dict(), tmp_path / "model.safetensors")
    assert load_pretrained(narrow_model("vivit"), "hub:timm/vit").loaded


def test_what_weights_learned_from_is_known_where_their_source_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def means(source: str) -> tuple[float, ...] | None:
        found = trained_normalization(source)
        return None if found is None else (*found.mean, *found.std)

    assert means("timm:vit_base_patch16_224.augreg_in21k") == (0.5,) * 6
    assert means("torchvision:r2plus1d_18") == (0.43216, 0.394666, 0.37645, 0.22803, 0.22145, 0.216989)
    assert (
        means("timm:no_such_model") is None and means(str(tmp_path)) is None and means(str(tmp_path / "w.pth")) is None
    )
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, file: str(tmp_path / file))
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}')
    assert means("hub:timm/vit/model.safetensors") == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    transformers.VideoMAEImageProcessor(image_mean=[0.3] * 3, image_std=[0.2] * 3).save_pretrained(tmp_path)
    assert means(str(tmp_path)) == means("hub:ORG/videomae") == (0.3,) * 3 + (0.2,) * 3
    transformers.VivitImageProcessor().save_pretrained(tmp_path)  # whose values are moved before
    assert means(str(tmp_path)) is None
    (tmp_path / "preprocessor_config.json").write_text("[]")
    for content in ("nonsense", '{"pretrained_cfg": "augreg"}'):
        (tmp_path / "config.json").write_text(content)
        assert means(str(tmp_path)) is None


def test_without_a_network_a_name_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(CheckpointError, match=r"timm:vit_base_patch16_224: can't be fetched.*no route to host.*path"):
        load_pretrained(narrow_model("vivit"), "timm:vit_base_patch16_224")


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "_orig_mod.module.", "model._orig_mod.", "model.module."])
def test_wrappers_come_off_in_any_order(tmp_path: Path, prefix: str) -> None:
    """DDP of a compiled model, a compiled one of DDP, and Lightning's module around either."""
    vit = image_vit()
    model = narrow_model("vivit")
    state = {f"{prefix}{key}": tensor for key, tensor in vit.state_dict().items()}
    load_pretrained(model, saved({"state_dict": state, "epoch": 3}, tmp_path / "last.pth"))
    assert same(model, "spatial.blocks.1.mlp.fc1.weight", vit.blocks[1].mlp.fc1.weight)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    vit = image_vit().state_dict()
    model = narrow_model("vivit")

    def refusal(state: dict[str, Any]) -> str:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(CheckpointError) as caught:
            load_pretrained(model, saved(state, tmp_path / "weights.pth"))
        assert all(same(model, name, tensor) for name, tensor in before.items())
        return str(caught.value)

    lacking = {key: tensor for key, tensor in vit.items() if key != "blocks.1.mlp.fc1.bias"}
    assert "lacks spatial.blocks.1.mlp.fc1.bias" in refusal(lacking)
    assert "unknown keys spatial.blocks.0.ls1.gamma" in refusal(vit | {"blocks.0.ls1.gamma": torch.zeros(32)})
    assert "spatial.blocks.3.norm1.weight" in refusal(image_vit(depth=4).state_dict())
    assert "lacks spatial.blocks.2.norm1.weight" in refusal(image_vit(depth=2).state_dict())
    wide = refusal(image_vit(embed_dim=64).state_dict())
    assert "made for another size of ViViT" in wide
    assert "spatial.cls_token [1, 1, 64] instead of [1, 1, 32]" in wide
    stray = refusal({"weight": torch.zeros(3)})
    assert "not a layout that ViViT can be filled from (scenic ViViT, vidpipe, image ViT)" in stray


def test_files_that_are_not_weights(tmp_path: Path) -> None:
    model = narrow_model("vivit")
    with pytest.raises(CheckpointError, match="no such file"):
        load_pretrained(model, str(tmp_path / "absent.pth"))
    with pytest.raises(CheckpointError, match="expected one of"):
        load_pretrained(model, str(tmp_path))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.pth: can't be read: is neither of torch.save's formats"):
        load_pretrained(model, str(tmp_path / "text.pth"))
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match="can't be read"):
        load_pretrained(model, str(tmp_path / "text.safetensors"))
    torch.save({"model": Path("/code")}, tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        load_pretrained(model, str(tmp_path / "code.pth"))


def test_a_run_of_our_own_gives_its_averaged_weights(tmp_path: Path) -> None:
    pretrained, model = narrow_model("videomae-pretrain"), narrow_model("videomae")
    average = {name: tensor * 0.5 for name, tensor in pretrained.state_dict().items()}
    saved({"version": 1, "weights": pretrained.state_dict(), "ema": average}, tmp_path / "best.ckpt")
    load_pretrained(model, str(tmp_path))
    name = "encoder.blocks.1.attn.v_bias"
    assert same(model, name, average[name])
    saved({"version": 1, "weights": pretrained.state_dict(), "ema": None}, tmp_path / "best.ckpt")
    load_pretrained(model, str(tmp_path / "best.ckpt"))
    assert same(model, name, pretrained.state_dict()[name])
