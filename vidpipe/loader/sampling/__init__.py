"""Which samples, frames and views an epoch holds, in which order, and how far its consumer is."""
