"""Training: the job, its epochs and updates, the optimiser, the checkpoint and the history."""
