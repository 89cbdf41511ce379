"""Whether a study's folder is whole, and whether this machine computes correctly."""
