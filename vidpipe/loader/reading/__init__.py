"""From shards to frames: where samples lie, the threads and processes that read them, and the memory they read into."""
