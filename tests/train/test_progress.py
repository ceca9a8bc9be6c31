"""How a run shows that it goes."""

from __future__ import annotations

import pytest

from vidpipe.train.progress import Progress, Pulse


def test_a_terminal_that_knows_no_live_line_gets_plain_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    with Progress() as progress:
        pulse = Pulse(
            step=1,
            total_steps=2,
            epoch=1,
            loss=0.5,
            top1=None,
            lr=0.1,
            clips_per_second=10,
            data_wait_share=0,
            memory_bytes=None,
            eta_seconds=1,
        )
        progress.pulse(pulse, due=True)
        assert "step 1/2  epoch 1  loss 0.5000" in capsys.readouterr().err
