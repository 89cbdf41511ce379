"""Imported in the process that the workers of this machine are forked from, and only there."""

import signal

# A signal to every process of a job is for driver and workers, which save what they can;
# were this one gone, the driver would take its workers for dead.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
