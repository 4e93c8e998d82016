"""Runs a module as the main program while standard input stays open: `python -m quartsse.tools.leash MODULE …`.

Whoever starts a child this way keeps the other end of the pipe. When that process is gone, however it went (`kill -9`
too), the pipe closes, and the child ends as if it had been sent SIGTERM.
"""

import os
import runpy
import signal
import sys
import threading
import time

PATIENCE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


def main() -> None:
    """Run the module that the first argument names, with the other arguments."""
    threading.Thread(target=_end_with_the_pipe, name="leash", daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_the_pipe() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
