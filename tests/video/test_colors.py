"""Matrix, range and tones that a video states, or leaves unsaid, become the RGB that they mean, or the video is refused.

Bars of known colours are off by at most 3 levels of 255 in good H.264; a wrong matrix puts them off by 13 (BT.2020 for BT.709)
to 34 (BT.601), a wrong range by 17 to 20.
"""

from __future__ import annotations

import numpy as np
import pytest
from video.numbered import HEIGHT, MakeVideo, color_error, copy_video, read_numbers

from vidpipe.errors import VideoError
from vidpipe.video.decode import Decoder, extract_clips
from vidpipe.video.spec import ClipSpec
from vidpipe.video.transcode import transcode_video

ALL: tuple[Decoder, ...] = ("pyav", "decord", "ffmpeg")
COLOR_LEVELS = 8.0
SPEC = ClipSpec(frames=6, stride=3, clips=3, height=HEIGHT)
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-qp", "10")


@pytest.mark.parametrize("decoder", ALL)
@pytest.mark.parametrize("color_range", ["tv", "pc"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
def test_matrix_and_range_are_honoured(
    matrix: str, color_range: str, decoder: Decoder, ffmpeg_video: MakeVideo
) -> None:
    names = {"bt601": ("170m", "smpte170m"), "bt709": ("709", "bt709"), "bt2020": ("2020_ncl", "bt2020nc")}
    zimg, tag = names[matrix]
    primaries = "2020" if matrix == "bt2020" else "709"
    wide = f"zscale=matrixin=gbr:rangein=full:primariesin={primaries}:primaries={primaries}:transferin=709:transfer=709"
    full = "full" if color_range == "pc" else "limited"
    filters = f"format=gbrp,{wide}:matrix={zimg}:range={full},format=yuv420p"
    path = ffmpeg_video("x.mp4", "-vf", filters, *H264, "-colorspace", tag, "-color_range", color_range)
    extraction = extract_clips(path, SPEC, key="k", decoder=decoder)
    assert (extraction.info.color_space, extraction.info.color_range) == (tag, color_range)
    assert color_error(extraction.clips[0].video) <= COLOR_LEVELS


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_is_tone_mapped(transfer: str, ffmpeg_video: MakeVideo) -> None:
    """Measured: white, 235 in the source, comes out at 235; without tone mapping at 141 (PQ) or 181 (HLG), and pale colours
    are off by 95 and more; with it, by 10.
    """
    source = "format=gbrp,zscale=matrixin=gbr:rangein=full:primariesin=709:transferin=709:npl=203"
    target = f"matrix=2020_ncl:primaries=2020:transfer={transfer}:range=limited,format=yuv420p10le"
    params = f"log-level=error:qp=10:pools=1:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    encoding = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", params)
    path = ffmpeg_video("hdr.mp4", "-vf", f"{source}:{target}", *encoding)
    extraction = extract_clips(path, SPEC, key="k")
    assert extraction.decoder == "ffmpeg"
    assert extraction.info.is_hdr
    clip = extraction.clips[1]
    assert read_numbers(clip.video) == clip.frame_indices.tolist()
    assert color_error(clip.video) <= 20


@pytest.mark.parametrize("transfer", [16, 18], ids=["pq", "hlg"])
def test_hdr_that_leaves_matrix_or_primaries_unsaid_is_bt2020(transfer: int, ffmpeg_video: MakeVideo) -> None:
    plain = ffmpeg_video("plain.mp4", *H264, "-pix_fmt", "yuv420p10le", frames=6)

    def tagged(name: str, matrix: int, primaries: int) -> np.ndarray:
        tags = f"transfer_characteristics={transfer}:matrix_coefficients={matrix}:colour_primaries={primaries}"
        path = copy_video(plain, name, after=("-c", "copy", "-bsf:v", f"h264_metadata={tags}"))
        extraction = extract_clips(path, ClipSpec(frames=2, height=HEIGHT), key="k")
        assert extraction.info.is_hdr
        return extraction.clips[0].video

    stated = tagged("stated.mp4", 9, 9)
    for matrix, primaries in ((9, 2), (2, 9), (2, 2)):
        np.testing.assert_array_equal(tagged(f"{matrix}-{primaries}.mp4", matrix, primaries), stated)
    assert not np.array_equal(tagged("another.mp4", 1, 9), stated)


@pytest.mark.parametrize(("matrix", "transfer"), [(8, 1), (10, 1), (10, 16)])
def test_colours_that_ffmpeg_cant_convert_are_no_damage(matrix: int, transfer: int, ffmpeg_video: MakeVideo) -> None:
    plain = ffmpeg_video("plain.mp4", *H264, "-pix_fmt", "yuv420p", frames=6)
    tags = f"matrix_coefficients={matrix}:transfer_characteristics={transfer}:colour_primaries=9"
    path = copy_video(plain, "tagged.mp4", after=("-c", "copy", "-bsf:v", f"h264_metadata={tags}"))
    decoders: tuple[Decoder, ...] = ("auto", "decord", "ffmpeg")
    for decoder in decoders:
        with pytest.raises(VideoError, match="can't convert its colours") as raised:
            extract_clips(path, SPEC, key="k", decoder=decoder)
        assert (raised.value.reason, raised.value.stage) == ("unsupported", "decode")
    with pytest.raises(VideoError, match="can't convert its colours"):
        transcode_video(path, SPEC, crf=30, gop=12)
