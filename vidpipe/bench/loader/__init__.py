"""`vidpipe bench loader`: the loader beside its peers, each an arm of `arms`."""
