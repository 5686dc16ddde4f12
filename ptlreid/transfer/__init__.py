"""Transfer from network to network: distillation, the stages of a chain, and how a chain is scored."""
