"""Which weights may go: the rule, the scores, the masks and how far they are apart."""
