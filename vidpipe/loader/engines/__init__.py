"""From requests to batches on the device: by torch or by DALI."""
