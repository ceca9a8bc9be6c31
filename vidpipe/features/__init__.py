"""Feature shards: what a frozen image backbone makes of every stored frame, kept so that it needn't be computed again."""
