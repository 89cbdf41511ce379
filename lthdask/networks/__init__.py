"""Networks by name, and stacks of them for a cohort. Knows only torch and torchvision."""
