"""`vidpipe bench prep`: preparation beside bare decoding and re-encoding, each an arm of `arms`."""
