"""Holds a write lease on a file (fcntl(2), F_SETLEASE): lease.py FILE.

Whoever opens the file waits until this process ends. It says whether it has the lease, and when
somebody waits.
"""

import fcntl
import os
import signal
import sys

signal.signal(signal.SIGIO, lambda *_: print("opened", flush=True))
descriptor = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    print("lease held", flush=True)
except OSError as error:
    print("lease refused:", error, flush=True)
while True:
    signal.pause()
