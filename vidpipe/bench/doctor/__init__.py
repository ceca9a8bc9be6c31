"""`vidpipe doctor`: every stage from the disk to the model's step, measured alone, and which of them is the limit."""
