"""Models learn: what needs time from time alone, a handful of clips by heart, masked pixels from visible ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from models.narrow import narrow_model
from models.torus import draw_clips, first_frame_only, shuffled
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from vidpipe.models import MODELS, create_model
from vidpipe.models.videomae_pretrain import VideoMAEPretrain


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The same sums on any number of cores, so that a gate that holds keeps holding."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


_TRUNK: dict[str, Any] = {"width": 8, "layers": (1, 1, 1, 1)}


class Gate(NamedTuple):
    config: dict[str, Any]
    steps: int
    batch_size: int
    lr: float


GATES = {
    "vivit-tiny": Gate({"patch_size": 8, "spatial_depth": 1, "temporal_depth": 1}, steps=160, batch_size=64, lr=3e-3),
    "r2plus1d": Gate(_TRUNK, steps=100, batch_size=20, lr=4e-3),
    "r2plus1d-perceiver": Gate(
        {**_TRUNK, "num_blocks": 3, "num_queries": 8, "num_self": 2, "latent_width": 64, "head_width": 16},
        steps=110,
        batch_size=20,
        lr=4e-3,
    ),
}


def accuracy(model: nn.Module, video: Tensor, label: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(clips) for clips in video.split(64)])
    return (logits.argmax(1) == label).float().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(GATES))
def test_direction_of_motion_is_learned_from_the_order_of_frames(name: str) -> None:
    gate = GATES[name]
    model = create_model(name, num_classes=4, num_frames=8, image_size=32, **gate.config).train()
    model.to(memory_format=torch.channels_last_3d)  # convolutions of few channels need a third less time
    optimizer = create_optimizer_v2(model, opt="adamw", lr=gate.lr, weight_decay=0.05)
    schedule = CosineLRScheduler(optimizer, t_initial=gate.steps, warmup_t=gate.steps // 10, warmup_lr_init=1e-5)
    generator = torch.Generator().manual_seed(1)
    for step in range(gate.steps):
        schedule.step(step)
        video, label = draw_clips(gate.batch_size, num_frames=8, size=32, generator=generator)
        loss = F.cross_entropy(model(video), label)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    video, label = draw_clips(1024, num_frames=8, size=32, generator=generator)
    ordered = accuracy(model, video, label)
    mixed = accuracy(model, shuffled(video, generator), label)
    still = accuracy(model, first_frame_only(video), label)
    print(f"{name}: ordered {ordered:.3f}, shuffled {mixed:.3f}, one frame {still:.3f}")
    assert ordered > 0.95
    assert mixed < 0.60
    assert still < 0.32


CLASSIFIERS = sorted(name for name in MODELS if not name.startswith("videomae-pretrain"))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_sixteen_clips_are_learned_by_heart(name: str) -> None:
    config = {"head_dropout": 0.0} if name == "r2plus1d-bert" else {}
    model = narrow_model(name, **config).train()
    video = torch.randn(16, 3, *model.clip_shape)
    label = torch.arange(16) % 4
    optimizer = create_optimizer_v2(model, opt="adamw", lr=2e-3, weight_decay=0.0)
    for step in range(200):
        loss = F.cross_entropy(model(video), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9 and accuracy(model, video, label) == 1:
            return
        model.train()
    pytest.fail(f"{name}: accuracy {accuracy(model, video, label)} after 200 steps, loss {loss.item():.3f}")


@pytest.mark.slow
def test_pretraining_reconstructs_clips_that_it_knows() -> None:
    """Under masks of every kind."""
    config: dict[str, Any] = {"num_frames": 8, "image_size": 32, "patch_size": 8, "width": 96, "depth": 3}
    config |= {"num_heads": 3, "decoder_width": 96, "decoder_heads": 3, "decoder_depth": 2, "mask_ratio": 0.75}
    kinds = ("tube", "random", "frame", "tube")
    models = [create_model("videomae-pretrain", num_classes=1, **config, mask=kind) for kind in kinds]
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(8, 3, 3, 4, 4, generator=generator)
    video = F.interpolate(coarse, size=(8, 32, 32), mode="trilinear")
    masks = [model.draw_mask(8, generator) for model in models]
    model = models[0]
    assert isinstance(model, VideoMAEPretrain)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=2e-3, weight_decay=0.0, betas=(0.9, 0.95))
    losses = []
    for step in range(360):
        chosen = masks[step % 4]
        loss = model.loss(model(video, chosen), video, chosen)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    print(f"loss {losses[0]:.3f} -> {losses[-4:]}")
    # Targets have unit variance: 1 is what predicting the mean would give.
    assert losses[0] > 0.9
    assert max(losses[-4:]) < 0.1

    pictures = model.reconstruct(video, masks[0])
    hidden = (pictures.masked != pictures.original).float()
    error = ((pictures.reconstructed - pictures.original) * hidden).square().sum() / hidden.sum()
    assert error < 0.1 * pictures.original.var()
