"""Training steps on a GPU: every model in bf16, compiled models, the whole step of a recipe, and the benchmark."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from forked import Forked
from gpu.host_syncs import host_syncs
from models.narrow import NARROW, narrow_model, output_of, random_clips

import vidpipe
from vidpipe.bench.epoch.run import EpochBenchmark, run_epoch_benchmark
from vidpipe.bench.gpu.models import MODELS
from vidpipe.bench.gpu.options import GpuBenchmark
from vidpipe.bench.gpu.run import run_gpu_benchmark
from vidpipe.bench.train_step import TrainStep
from vidpipe.loader import Batch
from vidpipe.train.objective import Shown, objective_for
from vidpipe.train.step import StepResult
from vidpipe.train.step_numbers import QueuedNumbers
from vidpipe.train.writer import CheckpointWriter

pytestmark = pytest.mark.gpu


def load_on_the_second_gpu(shards: Path, out: Path) -> None:
    """As the second of a machine's processes does."""
    torch.cuda.set_device(1)
    for backend in ("dali", "torch"):
        with vidpipe.Loader(shards, batch_size=4, size=64, augment="train", device="cuda:1", backend=backend) as loader:
            assert len([*loader]) == len(loader)
    device = torch.device("cuda", 1)
    state = {"step": 1, "weights": torch.ones(8, device=device)}
    with CheckpointWriter(out, keep_last=1, rank=0, sharded=False, device=device) as writer:
        writer.save(state, best=False)
    assert [torch._C._cuda_hasPrimaryContext(gpu) for gpu in (0, 1)] == [False, True]


@pytest.mark.parametrize("codec", ["tensor", "jpeg"])
def test_a_process_takes_nothing_of_other_gpus(
    codec_shards: dict[str, Path], true_cuda: torch.device, codec: str, tmp_path: Path
) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device here; it takes two to use the wrong one")
    Forked(load_on_the_second_gpu, codec_shards[codec], tmp_path).finish()


@pytest.mark.parametrize("name", sorted(NARROW))
def test_a_step_in_bf16_moves_every_parameter(name: str, cuda: torch.device) -> None:
    """On the CPU in float32, since its bf16 convolutions are at fault for such small layers."""
    torch.manual_seed(0)
    model = narrow_model(name).to(cuda).train()
    label = torch.arange(8, device=cuda) % 5
    real = torch.ones(8, dtype=torch.bool, device=cuda)
    video = random_clips(model, 8).to(cuda)
    shown = Shown(video=video, target=label, label=label, real=real, keys=[f"{n}" for n in range(8)], epoch=0)
    objective = objective_for(model, label_smoothing=0.0, soft=False, seed=0)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
    for _ in range(3):
        with torch.autocast(cuda.type, dtype=torch.bfloat16, enabled=cuda.type == "cuda"):
            output, mask = objective.output(model, shown)
            loss = objective.losses(output, mask, shown).mean()
        loss.backward()
        assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in trained.values())
        optimizer.step()
        optimizer.zero_grad()
    assert not [name for name, parameter in trained.items() if torch.equal(parameter, before[name])]


@pytest.mark.parametrize("name", ["vivit", "timesformer", "videomae", "r2plus1d"])
def test_compiled_models_agree_with_eager_ones(name: str, cuda: torch.device) -> None:
    model = narrow_model(name).to(cuda)
    clips = random_clips(model, 2).to(cuda)
    compiled = torch.compile(model, backend="inductor" if cuda.type == "cuda" else "aot_eager")
    with torch.no_grad(), torch.autocast(cuda.type, dtype=torch.bfloat16):
        expected, got = output_of(model, clips).float(), output_of(model, clips, run=compiled).float()
    assert (got - expected).abs().max() < 0.05 * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.recipe)
def test_a_recipes_steps_wait_for_nothing(motion_shards: Path, cuda: torch.device, model: object) -> None:
    """The whole step of `vidpipe train`, in the steady state, on the loader's batches."""
    with vidpipe.Loader(motion_shards, batch_size=4, frames=8, size=64, augment="train", device=cuda) as loader:
        batches: list[Batch] = list(loader)
        geometry = ("data.frames=8", "data.stride=null", "data.epoch_unit=clip")
        step = TrainStep(
            model.recipe, (*geometry, *model.narrow, "data.size=64"), loader.manifest, device=cuda.type, batch_size=4
        )
        for batch in batches[:3]:
            step(batch)
        with host_syncs(cuda) as waits:
            for batch in batches[3:]:
                step(batch)
        step.wait()
    assert not waits, "\n".join(dict.fromkeys(waits))


def test_a_steps_numbers_dont_wait_for_the_next_step(true_cuda: torch.device) -> None:
    values = torch.arange(4, device=true_cuda)
    queued = QueuedNumbers(
        StepResult(
            loss=values[1] / 2,
            correct=values[2],
            labelled=values[3],
            clips=values[3],
            grad_norm=values[0].float(),
            keys=("a",),
            left_out=False,
        )
    )
    torch.cuda._sleep(2_000_000_000)  # cycles: about a second
    begin = time.perf_counter()
    numbers = queued.read()
    assert (numbers.loss, numbers.correct, numbers.clips, numbers.grad_norm) == (0.5, 2, 3, 0.0)
    waited = time.perf_counter() - begin
    torch.cuda.synchronize(true_cuda)
    assert waited < (time.perf_counter() - begin) / 2


@pytest.mark.timeout(900)
def test_the_epoch_benchmark_trains_there(motion_shards: Path, true_cuda: torch.device, tmp_path: Path) -> None:
    size = {"videos": 16, "size": 64, "batch_size": 4, "steps": 4, "workers": 2}
    where = {"shards": motion_shards, "source": motion_shards / "videos", "out": tmp_path}
    report = run_epoch_benchmark(EpochBenchmark(quick=True, recipe="vivit-tiny", **size, **where))
    assert report.device == "cuda" and report.kinds == ("vivit-tiny on cuda",) and len(report.rows) == 4
    assert all(row.clips_per_second > 0 and 0 <= row.data_share < 1 for row in report.rows)


@pytest.mark.timeout(900)
def test_the_benchmark_has_every_row(true_cuda: torch.device, tmp_path: Path) -> None:
    report = run_gpu_benchmark(GpuBenchmark(quick=True, seconds=0.1, batch_size=4, out=tmp_path))
    assert not report.left_out, report.left_out
    by_vidpipe = [row for row in report.batches if row.name.startswith("vidpipe")]
    assert len(report.models) == 2 * len(MODELS) and len(by_vidpipe) == 8 and len(report.batches) == 10
    assert len(report.copies) == 4 and len(report.decoders) == 5
    assert all(row.gpu_seconds_per_clip and row.rate.gpu_bytes for row in report.batches)
