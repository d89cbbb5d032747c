"""Many independent pieces of work: on processes of this machine, or on a Ray cluster.

A job is a function of a module with arguments that can be pickled. Whatever it makes it should leave in files, so that
work that was finished is not done again when a killed driver is started again. A process that dies (killed, out
of memory) is tried again; an exception is an answer, and is not.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from coset.core.errors import CosetError, require
from coset.runs.signals import Stopped, stop_on_signals

ENGINES = ("local", "ray")
PATIENCE = 10
"""Seconds that a process has to end in when it is asked to."""
_STORE = 200_000_000  # bytes


class Job(NamedTuple):
    """One piece of work.

    Attributes:
        name: By which it is reported.
        function: Of a module, so that another process can import it.
        arguments: For the function.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        name: Of the job.
        result: What the function returned; ``None`` if it failed.
        error: Why it failed, in one line; ``None`` if it did not.
        seconds: Of the attempt that ended it.
    """

    name: str
    result: Any
    error: str | None
    seconds: float


def run_jobs(
    jobs: Iterable[Job], engine: str = "local", workers: int = 1, retries: int = 2, threads: int | None = None
) -> Generator[Outcome, None, None]:
    """Outcomes in the order in which jobs end; none is dropped.

    Args:
        jobs: Names must differ. Those that are no sequence are asked for one by one, each when there is a worker for
            it and the outcomes before it have been taken: so that it can depend on them.
        engine: ``local`` (processes that serve one job after the other) or ``ray`` (the cluster of ``RAY_ADDRESS``, or
            one started here).
        workers: Jobs at a time; on a running Ray cluster its resources decide, if ``jobs`` is a sequence.
        retries: How often a job is started again whose process died.
        threads: Of a job; the cores of this machine are shared out by default.

    Raises:
        CosetError: Ray is asked for and not installed, the names or numbers are wrong, or processes cannot begin as a
            script starts them outside of ``if __name__ == "__main__":``.
    """
    if engine not in ENGINES:
        raise CosetError(f"engine {engine!r}: choose {' or '.join(ENGINES)}")
    if workers < 1 or retries < 0:
        raise CosetError(f"workers={workers} must be at least 1, retries={retries} at least 0")
    distinct: Iterable[Job] = _distinct(jobs)
    if isinstance(jobs, Sequence):
        distinct = list(distinct)
    threads = threads or max(1, (os.cpu_count() or 1) // workers)
    return (_on_ray if engine == "ray" else _in_processes)(distinct, workers, retries, threads)


def _distinct(jobs: Iterable[Job]) -> Iterator[Job]:
    names: set[str] = set()
    for job in jobs:
        if job.name in names:
            raise CosetError(f"two jobs are called {job.name!r}")
        names.add(job.name)
        yield job


class _Worker:
    """A process of this machine that serves one job after the other: to start one takes longer than many a job."""

    def __init__(self, threads: int):
        context = multiprocessing.get_context("spawn")  # forking a process with threads (PyTorch, Numba) can hang
        self.channel, theirs = context.Pipe()
        self.serves = context.RawValue("b", False)
        self.process = context.Process(target=_serve, args=(theirs, self.serves, threads))
        self.process.start()
        theirs.close()

    def take(self, job: Job, attempts: int) -> None:
        """Start with a job that was tried so often before."""
        self.job, self.attempts, self.started = job, attempts + 1, time.monotonic()
        with suppress(OSError):  # a process that died meanwhile is found dead when its answer is waited for
            self.channel.send(job)

    def parts(self) -> tuple[Connection, int]:
        """What to wait for: a process that answers is ready before it ends, one that dies without when it has."""
        return self.channel, self.process.sentinel

    def is_done(self) -> bool:
        """Whether it has answered, or died."""
        return self.channel.poll() or not self.process.is_alive()

    def answer(self) -> tuple[Any, str | None, float] | None:
        """What became of its job; ``None`` if it died."""
        with suppress(EOFError, OSError):
            if self.channel.poll():
                return self.channel.recv()
        self.process.join()
        self.channel.close()
        if not self.serves.value and self.process.exitcode == 1:
            raise CosetError(
                "a process ended before it began: each runs the script anew that starts it, so that what this does "
                "belongs under if __name__ == '__main__':"
            )
        return None

    def death(self) -> tuple[None, str, float]:
        """The answer of one that died too often."""
        code = self.process.exitcode
        how = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        return None, f"its process died ({how}), {self.attempts} times", time.monotonic() - self.started

    def end(self) -> None:
        """Ask it to stop, which lets it say how far its run came; a process that does not listen is killed."""
        self.process.terminate()
        self.process.join(PATIENCE)
        self.process.kill()
        self.process.join()


def _in_processes(jobs: Iterable[Job], workers: int, retries: int, threads: int) -> Generator[Outcome, None, None]:
    waiting, again = iter(jobs), list[tuple[Job, int]]()
    busy, idle = list[_Worker](), list[_Worker]()
    try:
        while True:
            while len(busy) < workers and (work := again.pop() if again else _next(waiting)) is not None:
                worker = idle.pop() if idle else _Worker(threads)
                busy.append(worker)
                worker.take(*work)
            if not busy:
                return
            wait([part for worker in busy for part in worker.parts()])
            for worker in [worker for worker in busy if worker.is_done()]:
                busy.remove(worker)
                answer = worker.answer()
                if answer is not None:
                    idle.append(worker)
                elif worker.attempts <= retries:
                    again.append((worker.job, worker.attempts))
                    continue
                yield Outcome(worker.job.name, *(answer or worker.death()))
    finally:
        for worker in (*busy, *idle):
            worker.end()


def _next(jobs: Iterator[Job]) -> tuple[Job, int] | None:
    job = next(jobs, None)
    return None if job is None else (job, 0)


def _serve(driver: Connection, serves: Any, threads: int) -> None:
    """The body of a process."""
    _die_with_parent()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before a job is received, and with it PyTorch imported
    try:
        with stop_on_signals(), suppress(EOFError):
            serves.value = True
            while True:
                job: Job = driver.recv()
                driver.send(_attempt(job.function, job.arguments, threads))
    except Stopped as stop:
        sys.exit(stop.exit_code)


def _attempt(function: Callable[..., Any], arguments: tuple[Any, ...], threads: int) -> tuple[Any, str | None, float]:
    """Result, error and seconds."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    result, error, started = None, None, time.monotonic()
    try:
        result = function(*arguments)
    except CosetError as mistake:
        error = str(mistake)
    except Exception as mistake:
        error = f"{type(mistake).__name__}: {' '.join(str(mistake).split()) or 'no message'}"
    return result, error, time.monotonic() - started


def _die_with_parent() -> None:
    """Without its driver a job would go on, beside the one that a new driver starts in the same folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _on_ray(jobs: Iterable[Job], workers: int, retries: int, threads: int) -> Generator[Outcome, None, None]:
    at_once = len(jobs) if isinstance(jobs, Sequence) else workers
    waiting = iter(jobs)
    with ray_running(workers * threads) as ray:
        remote = ray.remote(call_far)
        pending: dict[Any, tuple[Job, float]] = {}
        while True:
            for job in itertools.islice(waiting, at_once - len(pending)):
                options = remote.options(name=job.name, num_cpus=threads, max_retries=retries)
                work = pickle.dumps((_attempt, (job.function, job.arguments, threads)))
                pending[options.remote(sys.path, os.getcwd(), work)] = job, time.monotonic()
            if not pending:
                return
            for done in ray.wait(list(pending), num_returns=1)[0]:
                job, began = pending.pop(done)
                try:
                    answer = ray.get(done)
                except ray.exceptions.RayError as failure:
                    how = f"its process died ({type(failure).__name__}), {retries + 1} times"
                    answer = None, how, time.monotonic() - began
                yield Outcome(job.name, *answer)


def over_ray_data(
    function: Callable[..., Any], settings: tuple[Any, ...], items: Sequence[Any], workers: int, retries: int
) -> Iterator[Any]:
    """What a function of a module returns for each item, in any order: a map of Ray Data, a task an item.

    Args:
        function: Called as ``function(*settings, item)``.
        settings: The same for all.
        items: One at a time is in the hands of a task.
        workers: Cores, where Ray is started here.
        retries: How often a task is started again whose process died.

    Raises:
        CosetError: Ray is not installed, or a task failed for good.
    """
    require("ray.data", "ray")
    if not items:
        return
    with ray_running(workers) as ray:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.enable_rich_progress_bars = False
        path, place, work = list(sys.path), os.getcwd(), pickle.dumps((function, settings))

        def one(row: dict[str, Any]) -> dict[str, Any]:
            called, common = pickle.loads(work)
            return {"answer": pickle.dumps(call_far(path, place, pickle.dumps((called, (*common, items[row["id"]])))))}

        rows = ray.data.range(len(items), override_num_blocks=len(items)).map(one, num_cpus=1, max_retries=retries)
        try:
            for row in rows.iter_rows():
                yield pickle.loads(row["answer"])
        except ray.exceptions.RayError as error:
            first = next(iter(str(error).strip().splitlines()), "")
            raise CosetError(f"a task of Ray Data failed ({type(error).__name__}: {first})") from error


def call_far(path: list[str], here: str, work: bytes) -> Any:
    """Call a function in a worker that was not started from here: it may find fewer modules, and other files, than we
    do."""
    sys.path += [place for place in path if place not in sys.path]
    if os.path.isdir(here):
        os.chdir(here)
    function, arguments = pickle.loads(work)  # of our own driver's making
    return function(*arguments)


@contextmanager
def ray_running(cores: int) -> Iterator[Any]:
    """Ray: as it runs in this process already, or the cluster of ``RAY_ADDRESS``, or started here and stopped again.

    Raises:
        CosetError: It is not installed, or cannot be reached or started.
    """
    ray = require("ray", "ray")
    ours = not ray.is_initialized()
    # What our jobs make goes into files: the store for objects can be small.
    # local: Ray would join whatever cluster was started last on this machine, also one that has died since.
    own = {"address": "local", "num_cpus": cores, "object_store_memory": _STORE, "include_dashboard": False}
    try:
        if ours:
            place = {} if os.environ.get("RAY_ADDRESS") else own
            ray.init(log_to_driver=False, logging_level="error", **place)
    except Exception as error:  # Ray raises many kinds, a bare Exception where a busy machine takes too long
        ray.shutdown()
        raise CosetError(f"Ray cannot be reached or started: {' '.join(str(error).split())}") from error
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
