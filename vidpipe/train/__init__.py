"""Training: recipe, step loop, checkpoints, evaluation, prediction. Import what you need from its modules."""
