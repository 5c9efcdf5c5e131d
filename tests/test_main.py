"""Where ./inv begins."""

from __future__ import annotations

import subprocess
import sys

LOST = """
import sys, time
from pipeline.__main__ import _raise_later
sys.unraisablehook = _raise_later
class Callback:
    def __del__(self):
        raise KeyboardInterrupt
try:
    Callback()
    time.sleep(20)
except KeyboardInterrupt:
    print("came again")
"""


def test_ctrl_c_that_a_callback_of_python_lost_comes_again() -> None:
    """It met the garbage collector, say: the user would press it again, or read a traceback."""
    command = [sys.executable, "-c", LOST]
    # Far less than what the program waits for.
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=15)
    assert (ended.stdout, ended.stderr) == ("came again\n", "")
