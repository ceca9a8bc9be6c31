"""Shards: WebDataset tar files, their indexes and their manifest. The format's specification is shards/README.md."""
