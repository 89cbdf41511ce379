"""Which weights are pruned: the rule, the scores, the masks, and how far masks are apart."""
