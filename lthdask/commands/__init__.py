"""The command line, one file per command. It runs in the driver's process."""
