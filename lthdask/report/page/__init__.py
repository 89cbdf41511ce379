"""The page that shows a study while it is trained, and afterwards."""
