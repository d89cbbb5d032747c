"""Signals that end a command: it says how far it came and how to go on, and exits as the system expects.

A batch system sends SIGTERM, a terminal SIGINT. Both become :class:`Stopped`, which no ``except Exception`` catches, so
that files are closed and temporary ones removed on the way out.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

WATCHED = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """A signal has ended the command.

    Attributes:
        number: Of the signal.
        at: How far the command had come; empty if it did not say.
        again: The command that goes on; empty if there is nothing to go on from.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number, self.at, self.again = number, "", ""

    @property
    def name(self) -> str:
        """Of the signal."""
        return signal.Signals(self.number).name

    @property
    def exit_code(self) -> int:
        """143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.number

    def told(self, at: str, again: str) -> None:
        """Add how far the command had come and how to go on, unless that is known already."""
        self.at, self.again = self.at or at, self.again or again

    def __str__(self) -> str:
        where = f" at {self.at}" if self.at else ""
        return f"stopped by {self.name}{where}" + (f"; go on with: {self.again}" if self.again else "")


class Caught:
    """What has ended the body of :func:`stop_on_signals`, also where code of others made another exception of it.

    Attributes:
        stop: ``None`` until a signal comes.
        handler: Of the signals; ``None`` where they are not caught.
    """

    stop: Stopped | None = None
    handler: Callable[[int, FrameType | None], None] | None = None


_current = Caught()
"""Of the body that runs."""


def go_on() -> None:
    """Raise a signal's :class:`Stopped` once more if it was lost: where code of others dropped it, in an import say.

    Raises:
        Stopped: A signal has come.
    """
    if _current.stop is not None:
        raise _current.stop


def watch_again() -> None:
    """Take the signals back from code of others that took them, as extensions do while they are imported.

    PARI does, which SnapPy brings, and whoever has SnapPy gets it imported by fsspec, which takes it for the compressor
    of that name. What a signal raised then, others make other exceptions of, and nobody is told how to go on.
    """
    if _current.handler is not None and threading.current_thread() is threading.main_thread():
        for each in WATCHED:
            signal.signal(each, _current.handler)


def signal_behind(error: BaseException) -> Stopped | None:
    """The signal that an exception comes of, also where code of others made another exception of it.

    A library that took SIGINT for itself interrupts as Python does, and Lightning makes an exit of an interrupt.
    """
    for each in (error, error.__context__):
        if isinstance(each, Stopped):
            return each
        if isinstance(each, KeyboardInterrupt):
            return Stopped(signal.SIGINT)
    return None


def watched() -> bool:
    """Whether signals raise :class:`Stopped`, as in commands: in a notebook SIGINT is a ``KeyboardInterrupt``."""
    return _current.handler is not None


AGAIN = 0.02
"""Seconds after which a signal is raised again that came while an object was deleted."""


@contextmanager
def stop_on_signals() -> Iterator[Caught]:
    """While the body runs, SIGTERM and SIGINT raise :class:`Stopped` in it; a second signal changes nothing more.

    Python drops an exception that comes out of a destructor or a callback of the collector. There the signal is raised
    once more, a moment later. In other threads than the main one signals cannot be caught, and nothing is changed.
    """
    global _current
    caught = Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    dropped, hook = threading.Event(), sys.unraisablehook
    timers: list[threading.Timer] = []

    def stop(number: int, _: FrameType | None) -> None:
        if caught.stop is None:
            caught.stop = Stopped(number)
        elif not dropped.is_set():
            return
        dropped.clear()
        raise caught.stop

    def tell(unraisable: sys.UnraisableHookArgs) -> None:
        if caught.stop is None or unraisable.exc_value is not caught.stop:
            hook(unraisable)
            return
        dropped.set()
        timers.append(threading.Timer(AGAIN, _thread.interrupt_main, [caught.stop.number]))
        timers[-1].daemon = True
        timers[-1].start()

    caught.handler = stop
    outer, _current = _current, caught
    before = {each: signal.signal(each, stop) for each in WATCHED}
    sys.unraisablehook = tell
    try:
        yield caught
    finally:
        _current = outer
        sys.unraisablehook = hook
        for timer in timers:
            timer.cancel()
        for each, handler in before.items():
            signal.signal(each, handler)
