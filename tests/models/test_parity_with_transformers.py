"""Logits and gradients equal those of transformers' implementations, with random weights copied over.

Where weights have a published layout they travel through a file and `load_pretrained`, so that its key maps are tested
with the same stroke.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models.narrow import narrow_model
from models.parity import CLIP, TOLERANCE, assert_equal_classifier, assert_equal_gradients, shaken
from torch import Tensor, nn

from vidpipe.models.init import load_pretrained
from vidpipe.models.llama import LlamaBlock

transformers = pytest.importorskip("transformers")
HF_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "num_frames": 4,
    "layer_norm_eps": 1e-6,
    "num_labels": 5,
}


def run_hf(reference: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda video: reference(pixel_values=video.transpose(1, 2)).logits


@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
def test_timesformer_equals_transformers(tmp_path: Path, attention: str) -> None:
    kind = {"divided": "divided_space_time", "joint": "joint_space_time", "space": "space_only"}[attention]
    # The oracle doesn't average frames in its space-only form: there, one frame is compared.
    num_frames = 1 if attention == "space" else 4
    sizes = {**HF_SIZES, "num_frames": num_frames, "patch_size": 8}
    reference = shaken(
        transformers.TimesformerForVideoClassification(transformers.TimesformerConfig(**sizes, attention_type=kind))
    )
    reference.save_pretrained(tmp_path)
    model = narrow_model("timesformer", attention=attention, num_frames=num_frames)
    assert not load_pretrained(model, str(tmp_path)).fresh
    assert_equal_classifier(model, reference, run_hf(reference), num_frames=num_frames)


def test_videomae_equals_transformers(tmp_path: Path) -> None:
    config = transformers.VideoMAEConfig(**HF_SIZES, patch_size=8, use_mean_pooling=True)
    reference = shaken(transformers.VideoMAEForVideoClassification(config))
    reference.fc_norm.eps = 1e-6  # the authors' value; transformers leaves torch's default
    reference.save_pretrained(tmp_path)
    model = narrow_model("videomae")
    assert not load_pretrained(model, str(tmp_path)).fresh
    assert_equal_classifier(model, reference, run_hf(reference))


def test_videomae_pretraining_equals_transformers(tmp_path: Path) -> None:
    config = transformers.VideoMAEConfig(
        **HF_SIZES,
        patch_size=8,
        use_mean_pooling=False,
        decoder_hidden_size=16,
        decoder_num_attention_heads=2,
        decoder_num_hidden_layers=2,
        decoder_intermediate_size=64,
    )
    reference = shaken(transformers.VideoMAEForPreTraining(config))
    reference.decoder.norm.eps = 1e-6
    reference.save_pretrained(tmp_path)
    model = narrow_model("videomae-pretrain", mask_ratio=0.75)
    assert not load_pretrained(model, str(tmp_path)).fresh

    video = torch.randn(*CLIP)
    mask = model.draw_mask(2, torch.Generator().manual_seed(0))
    assert mask.sum(1).tolist() == [24, 24]
    expected = reference(pixel_values=video.transpose(1, 2), bool_masked_pos=mask)
    prediction = model(video, mask)
    assert expected.logits.std() > 0.1
    torch.testing.assert_close(prediction, expected.logits, atol=TOLERANCE, rtol=0)
    loss = model.loss(prediction, video, mask)
    torch.testing.assert_close(loss, expected.loss, atol=TOLERANCE, rtol=0)
    loss.backward()
    expected.loss.backward()
    assert_equal_gradients(model, reference)


def test_joint_vivit_equals_transformers(tmp_path: Path) -> None:
    config = transformers.VivitConfig(**HF_SIZES, tubelet_size=[2, 8, 8])
    reference = shaken(transformers.VivitForVideoClassification(config))
    reference.save_pretrained(tmp_path)
    model = narrow_model("vivit-joint")
    assert not load_pretrained(model, str(tmp_path)).fresh
    assert_equal_classifier(model, reference, run_hf(reference))


def test_llama_block_equals_transformers() -> None:
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_attention_heads=4, rms_norm_eps=1e-6, attn_implementation="eager"
    )
    reference = shaken(LlamaDecoderLayer(config, layer_idx=15))
    block = LlamaBlock(32, num_heads=4, hidden=48)
    names = {
        **{f"w{x}": f"self_attn.{x}_proj" for x in "qkvo"},
        **{x: f"mlp.{x}_proj" for x in ("gate", "up", "down")},
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    block.load_state_dict({f"{a}.weight": reference.state_dict()[f"{b}.weight"] for a, b in names.items()})
    x = torch.randn(2, 7, 32)
    still = torch.ones(2, 7, 8), torch.zeros(2, 7, 8)
    expected = reference(x, position_embeddings=still, attention_mask=None)
    expected = expected[0] if isinstance(expected, tuple) else expected
    got = block(x)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
    got.square().sum().backward()
    expected.square().sum().backward()
    theirs = dict(reference.named_parameters())
    for ours, name in names.items():
        gradient = block.get_parameter(f"{ours}.weight").grad
        torch.testing.assert_close(gradient, theirs[f"{name}.weight"].grad, atol=TOLERANCE, rtol=0)
