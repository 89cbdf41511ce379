"""A ticket that leaves its study: its file, what a program wants to know of it, and its card."""
