"""Where ./inv begins: Ctrl-C leaves a sentence from here on, while the program is still being loaded too."""

from __future__ import annotations

import os
import signal
import sys
import threading


def _raise_later(lost: sys.UnraisableHookArgs) -> None:
    """Have Ctrl-C come again where it met a callback of Python itself, as imports have, and was lost."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        # From a thread of its own, after this: here, it would be lost once more. As a signal, since nothing
        # else ends a wait of the system's.
        again = threading.Timer(0.02, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(lost)


def _have_streams() -> None:
    """Let what is said go nowhere where standard streams are closed, instead of into what is opened next."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free, which is the closed one; for programs that are started, too.
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115


def _ignore() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    _have_streams()
    sys.unraisablehook = _raise_later
    try:
        # ./inv holds Ctrl-C back until here, so that it never meets an interpreter that is only starting.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        from pathlib import Path

        from pipeline.cli import main

        status = main(Path(sys.argv[1]), sys.argv[2:])
        # On its way out, Python gives the signal back its usual meaning, unless it is ignored.
        _ignore()
    except KeyboardInterrupt:
        _ignore()
        sys.stderr.write("error: Interrupted.\nhint: The same command goes on where this one stopped.\n")
        status = 130
    sys.exit(status)
