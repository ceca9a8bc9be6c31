"""Preparation: videos to shards. `run.prepare` is the whole of it."""
