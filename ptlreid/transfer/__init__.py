"""Transfer between networks: distillation, and the stages and scores of a chain."""
