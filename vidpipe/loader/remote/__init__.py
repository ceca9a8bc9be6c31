"""Shards at a URL: fetched, checked, and kept in a cache on this machine."""
