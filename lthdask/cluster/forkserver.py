"""Imported in the process that the workers of this machine are forked from, and only there."""

import ctypes
import signal
import sys

# A signal to every process of a job is for driver and workers, which save what they can;
# were this one gone, the driver would take its workers for dead.
signal.signal(signal.SIGTERM, signal.SIG_IGN)

if sys.platform == "linux":
    # It is not to import on once the command has ended, holding on to its output.
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
