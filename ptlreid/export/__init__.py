"""From the weights of a run to a graph for other programs: `graph` traces it, `formats` writes it, `gate` tests it."""
