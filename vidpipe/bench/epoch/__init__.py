"""`vidpipe bench epoch`: the share of an epoch that goes into data, on the fly and from shards."""
