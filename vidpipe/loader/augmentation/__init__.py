"""What is done to clips: parameters drawn by (seed, epoch, sample), the reference that applies them, and changes to whole batches."""
