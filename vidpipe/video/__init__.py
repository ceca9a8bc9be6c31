"""From a video file to clips of frames: probing, temporal sampling, decoding with PyAV, decord or ffmpeg."""
