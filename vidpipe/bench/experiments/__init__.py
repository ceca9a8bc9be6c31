"""Small experiments with training, on generated videos: what they ask, how they are run, what came out."""
