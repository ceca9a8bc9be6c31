"""From a video file to clips of frames: probing, temporal sampling, decoding with decord or ffmpeg."""
