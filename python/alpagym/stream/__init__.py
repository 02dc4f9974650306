"""Training on more scenarios than fit into memory: which come next, and how they get there."""
