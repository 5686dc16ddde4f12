"""Training: the loop, its optimiser, its checkpoint and its history. Names no model, loss or dataset."""
