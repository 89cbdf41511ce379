"""Data sets by name, and their batches as a function of (seed, replicate, epoch)."""
