"""Benchmarks: vidpipe beside its alternatives, on the same clips, after proof that all give the same."""
