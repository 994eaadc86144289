"""Run a command and note its exit status, seconds, CPU seconds and peak memory in bytes: `_start.py NOTE COMMAND...`

A process's peak, as the system tells it, begins with the memory of whoever started it. So this one starts every measured command:
a bare Python (`-S -E`), smaller than anything that is measured.
"""

import json
import os
import sys
import time

began = time.perf_counter()
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)  # the only call that gives one child's peak
seconds = time.perf_counter() - began
peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
with open(sys.argv[1], "w") as note:
    json.dump([os.waitstatus_to_exitcode(status), seconds, usage.ru_utime + usage.ru_stime, peak], note)
