"""Imported by the server that starts the jobs of a sweep, and nowhere else: it outlasts signals to the whole group.

A sweep learns from it how its jobs end, so it has to be there until the last of them has saved. It ends with the sweep.
"""

import os
import signal
from types import FrameType

from cnnbench.training.signals import SIGNALS, handled

SERVER = os.getpid()
os.chdir(os.path.abspath(os.sep))  # jobs go where the sweep is; MKL ends a process that loads torch in a removed folder


def _outlast(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != SERVER:  # a process that it started, and that has not said yet what it does about signals
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


handled(SIGNALS, _outlast)
signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked since before this process began
