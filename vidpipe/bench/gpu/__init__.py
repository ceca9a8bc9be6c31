"""`vidpipe bench gpu`: copies, decoders, batches and training steps on a GPU, in one run."""
