"""What is read and made at each position of an epoch: samples, their frames, crops and what else is drawn, all of it pure
functions of (seed, epoch, position).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from vidpipe.loader.augmentation.augment import Augmentation, Drawn, sample_rng
from vidpipe.loader.augmentation.color import expected_grey
from vidpipe.loader.augmentation.region import center_region
from vidpipe.loader.options import LoaderOptions
from vidpipe.loader.reading.source import Source
from vidpipe.loader.request import Request, Take, make_request
from vidpipe.loader.sampling.order import Integers
from vidpipe.loader.sampling.sampler import Sampler, make_sampler
from vidpipe.loader.sampling.views import Views, make_views
from vidpipe.loader.sampling.window import FrameWindow
from vidpipe.shards.manifest import Normalization


class Planner:
    """Makes requests.

    Args:
        windows: of each split.
        augmentation: None for centred crops.
        views: None for one clip, or `clips_per_sample`, of each sample.
        size: side of the model's input.
    """

    def __init__(
        self,
        source: Source,
        sampler: Sampler,
        windows: Sequence[FrameWindow],
        *,
        augmentation: Augmentation | None,
        views: Views | None,
        clips_per_sample: int,
        size: int,
        seed: int,
    ) -> None:
        self._source = source
        self._index = source.index
        self._sampler = sampler
        self._windows = windows
        self._augmentation = augmentation
        self._views = views
        self._clips_per_sample = clips_per_sample
        self._size = size
        self._seed = seed

    @property
    def num_positions(self) -> int:
        """Positions of an epoch: samples or, with views, these."""
        return self._sampler.size * self._per_unit

    def requests(self, positions: Integers, padding: NDArray[np.bool_], epoch: int) -> list[Request]:
        """What is asked for at some positions of an epoch, in their order; successive views of a clip are one read.

        Args:
            positions: int64 [N], each from 0 to below `num_positions`.
            padding: bool [N], which of them only fill up the batch.
        """
        drawn = self._sampler.draw(positions // self._per_unit, epoch)
        if self._views is None:
            samples = self._sampler.samples(drawn, epoch, random=self._augmentation is not None)
            entries = zip(samples.tolist(), drawn.repeats.tolist(), padding.tolist(), strict=True)
            return [self.request(sample, epoch, repeat=repeat, is_padding=p) for sample, repeat, p in entries]
        places = zip(drawn.units.tolist(), padding.tolist(), (positions % self._per_unit).tolist(), strict=True)
        return [
            request
            for (unit, is_padding), group in groupby(places, key=lambda place: place[:2])
            for request in self._view_requests(unit, [view for *_, view in group], epoch, is_padding=is_padding)
        ]

    def shards_ahead(self, position: int, epoch: int) -> list[list[int]]:
        """The shards that are read at a position and soon after, window by window; nothing where the order is global."""
        return self._sampler.shards_ahead(position // self._per_unit, epoch)

    def request(self, sample: int, epoch: int, *, repeat: int = 0, is_padding: bool = False) -> Request:
        """A sample's clips in an epoch.

        Args:
            repeat: how often the sample came before in the epoch; it gets other clips each time.
        """
        first = repeat * self._clips_per_sample
        takes = [self._take(sample, epoch, first + number, number) for number in range(self._clips_per_sample)]
        return make_request(sample, takes, epoch=epoch, is_padding=is_padding)

    def _view_requests(self, unit: int, views: Sequence[int], epoch: int, *, is_padding: bool) -> list[Request]:
        """Some views of a video, by its number among the sampler's units; those of one stored clip are one read."""
        assert self._views is not None
        clips = self._sampler.units.clips(unit).tolist()
        samples = [clips[self._views.clip(view, len(clips))] for view in views]
        return [
            make_request(sample, [self._view(sample, view) for _, view in group], epoch=epoch, is_padding=is_padding)
            for sample, group in groupby(zip(samples, views, strict=True), key=lambda pair: pair[0])
        ]

    def stand_in(self, damaged: Request, attempt: int) -> Request:
        """As many clips of another sample, as padding: the `attempt`-th that could take the damaged one's place."""
        epoch = damaged.epoch
        sample = self._sampler.stand_in(damaged.sample, attempt, epoch)
        if self._views is None:
            return self.request(sample, epoch, is_padding=True)
        takes = [self._view(sample, take.view) for take in damaged.takes]
        return make_request(sample, takes, epoch=epoch, is_padding=True)

    @property
    def _per_unit(self) -> int:
        return 1 if self._views is None else len(self._views)

    def _window(self, sample: int) -> FrameWindow:
        return self._windows[self._source.split_number(sample)]

    def _take(self, sample: int, epoch: int, draw: int, number: int) -> Take:
        rng = sample_rng(seed=self._seed, epoch=epoch, sample=sample, draw=draw)
        stored, height, width = self._index.shape_of(sample)
        frames = self._window(sample).pick(rng, stored)
        if self._augmentation is None:
            drawn = Drawn(center_region(height, width))
        else:
            drawn = self._augmentation.draw(rng, height=height, width=width, size=self._size)
        return Take(frames, drawn, view=number, number=draw)

    def _view(self, sample: int, view: int) -> Take:
        assert self._views is not None
        units = self._sampler.units
        clips = len(units.clips(units.unit_of(sample)))
        stored, height, width = self._index.shape_of(sample)
        frames = self._views.frames(view, clips, self._window(sample), stored)
        return Take(frames, Drawn(self._views.region(view, height, width)), view=view, number=view)


def make_planner(
    source: Source,
    windows: Sequence[FrameWindow],
    options: LoaderOptions,
    *,
    augmented: bool,
    size: int,
    seed: int,
) -> Planner:
    """The planner that the options ask for.

    Args:
        windows: of each split.
        augmented: whether crops and what else there is are random.
        size: side of the model's input.

    Raises:
        UsageError: see `make_sampler` and `make_views`.
    """
    sampler = make_sampler(source, options, seed=seed)
    augmentation = None
    if augmented:
        stored = source.splits[0].manifest.normalization
        augmentation = make_augmentation(options, may_flip=source.manifest.horizontal_flip, stored=stored)
    return Planner(
        source,
        sampler,
        windows,
        augmentation=augmentation,
        views=make_views(options, windows, sampler.units, source.index),
        clips_per_sample=options.clips_per_sample,
        size=size,
        seed=seed,
    )


def make_augmentation(options: LoaderOptions, *, may_flip: bool, stored: Normalization) -> Augmentation:
    """The augmentation that the options ask for.

    Args:
        may_flip: what the shards say of it.
        stored: the shards' own normalisation, whatever the clips' is.
    """
    flip = may_flip if options.horizontal_flip is None else options.horizontal_flip
    return Augmentation(
        crop_scale=options.crop_scale,
        crop_ratio=options.crop_ratio,
        flip=flip,
        color=options.color_jitter,
        affine=options.affine,
        grey=expected_grey(stored.mean),
    )
