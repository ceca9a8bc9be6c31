"""`vidpipe bench codecs`: bytes, fidelity and speed of every codec."""
