"""Signals end a command wherever they come."""

import contextlib
import signal
import sys
import time

import pytest

from coset.runs.folder import RunFolder
from coset.runs.signals import Stopped, stop_on_signals, watch_again


class DeletedAtASignal:
    """Its destructor is what a signal interrupts, as the collector's callbacks may be."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_in_a_destructor_ends_the_command_all_the_same(number, capfd):
    """Python drops what a destructor raises: the command would go on, and hear no signal any more."""

    def command():
        with stop_on_signals():
            thing = DeletedAtASignal(number)
            del thing
            time.sleep(1)  # Python is told of the signal as it returns

    with pytest.raises(Stopped) as told:
        command()
    assert told.value.exit_code == 128 + number
    assert "Traceback" not in capfd.readouterr().err


def test_a_signal_that_comes_as_the_command_ends_is_not_raised_afterwards():
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with stop_on_signals():
        thing = DeletedAtASignal(signal.SIGINT)
        del thing
    time.sleep(0.1)
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before


def test_what_other_destructors_raise_is_still_told():
    class Broken:
        def __del__(self):
            raise ValueError("of a destructor")

    heard, before = [], sys.unraisablehook
    sys.unraisablehook = lambda told: heard.append(str(told.exc_value))
    try:
        with stop_on_signals():
            thing = Broken()
            del thing
    finally:
        sys.unraisablehook = before
    assert heard == ["of a destructor"]


def test_a_second_signal_changes_nothing_more():
    def command():
        with stop_on_signals():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGINT)  # while files are closed

    with pytest.raises(Stopped) as told:
        command()
    assert told.value.number == signal.SIGTERM


def test_a_signal_that_code_of_others_drops_ends_the_run_before_it_begins(tmp_path):
    folder = RunFolder(tmp_path / "run")

    def command():
        with stop_on_signals():
            with contextlib.suppress(BaseException):  # as imports of extensions may do
                signal.raise_signal(signal.SIGINT)
            folder.begin("kind: graphs\n")

    with pytest.raises(Stopped):
        command()
    assert not folder.path.exists()
    folder.begin("kind: graphs\n")
    assert folder.holds_run()


def test_signals_that_an_import_took_are_taken_back():
    def command():
        with stop_on_signals():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # as extensions do
            watch_again()
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped):
        command()
    watch_again()  # nothing watches
    assert signal.getsignal(signal.SIGINT) is before
