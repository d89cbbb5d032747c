"""Many independent pieces of work: on processes of this machine, or on a Ray cluster.

A job is a function of a module with arguments that can be pickled. Whatever it makes it should leave in files, so that
work that was finished is not done again when a killed driver is started again. A process that dies (killed, out
of memory) is tried again; an exception is an answer, and is not.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from coset.core.errors import CosetError, require

ENGINES = ("local", "ray")
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
    jobs: Sequence[Job], engine: str = "local", workers: int = 1, retries: int = 2, threads: int | None = None
) -> Iterator[Outcome]:
    """Outcomes in the order in which jobs end; none is dropped.

    Args:
        jobs: Names must differ.
        engine: ``local`` (a process a job) or ``ray`` (the cluster of ``RAY_ADDRESS``, or one started here).
        workers: Jobs at a time; on a running Ray cluster its resources decide.
        retries: How often a job is started again whose process died.
        threads: Of a job; the cores of this machine are shared out by default.

    Raises:
        CosetError: Ray is asked for and not installed, or the names or numbers are wrong.
    """
    if engine not in ENGINES:
        raise CosetError(f"engine {engine!r}: choose {' or '.join(ENGINES)}")
    if workers < 1 or retries < 0:
        raise CosetError(f"workers={workers} must be at least 1, retries={retries} at least 0")
    names = [job.name for job in jobs]
    if len(set(names)) < len(names):
        raise CosetError(f"two jobs are called {next(name for name in names if names.count(name) > 1)!r}")
    threads = threads or max(1, (os.cpu_count() or 1) // workers)
    return (_on_ray if engine == "ray" else _in_processes)(jobs, workers, retries, threads)


@dataclass
class _Running:
    job: Job
    process: Any
    answers: Connection
    attempts: int
    started: float


def _in_processes(jobs: Sequence[Job], workers: int, retries: int, threads: int) -> Iterator[Outcome]:
    waiting = [(job, 0) for job in reversed(jobs)]
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(_start(*waiting.pop(), threads))
            # A process that sends its answer is ready before it ends; one that dies without is ready when it has.
            wait([part for each in running for part in (each.answers, each.process.sentinel)])
            for each in [each for each in running if _is_done(each)]:
                running.remove(each)
                answer = _answer(each)
                if answer is None and each.attempts <= retries:
                    waiting.append((each.job, each.attempts))
                    continue
                yield Outcome(each.job.name, *(answer or (None, _death(each), time.monotonic() - each.started)))
    finally:
        for each in running:
            each.process.terminate()
            each.process.join()


def _start(job: Job, attempts: int, threads: int) -> _Running:
    context = multiprocessing.get_context("spawn")  # forking a process with threads (PyTorch, Numba) can hang
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, threads), name=job.name)
    process.start()
    theirs.close()
    with suppress(OSError):  # a process that died at once is found dead below
        ours.send(job)
    return _Running(job, process, ours, attempts + 1, time.monotonic())


def _is_done(each: _Running) -> bool:
    return each.answers.poll() or not each.process.is_alive()


def _answer(each: _Running) -> tuple[Any, str | None, float] | None:
    answer = None
    with suppress(EOFError, OSError):
        if each.answers.poll():
            answer = each.answers.recv()
    each.process.join()
    each.answers.close()
    return answer


def _death(each: _Running) -> str:
    code = each.process.exitcode
    how = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
    return f"its process died ({how}), {each.attempts} times"


def _work(driver: Connection, threads: int) -> None:
    """The body of a process."""
    _die_with_parent()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before the job is received, and with it PyTorch imported
    job: Job = driver.recv()
    driver.send(_attempt(job.function, job.arguments, threads))
    driver.close()


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


def _on_ray(jobs: Sequence[Job], workers: int, retries: int, threads: int) -> Iterator[Outcome]:
    with ray_running(workers * threads) as ray:
        remote = ray.remote(call_far)
        began = time.monotonic()
        pending = {
            remote.options(name=job.name, num_cpus=threads, max_retries=retries).remote(
                sys.path, pickle.dumps((_attempt, (job.function, job.arguments, threads)))
            ): job
            for job in jobs
        }
        while pending:
            for done in ray.wait(list(pending), num_returns=1)[0]:
                job = pending.pop(done)
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
        path, work = list(sys.path), pickle.dumps((function, settings))

        def one(row: dict[str, Any]) -> dict[str, Any]:
            called, common = pickle.loads(work)
            return {"answer": pickle.dumps(call_far(path, pickle.dumps((called, (*common, items[row["id"]])))))}

        rows = ray.data.range(len(items), override_num_blocks=len(items)).map(one, num_cpus=1, max_retries=retries)
        try:
            for row in rows.iter_rows():
                yield pickle.loads(row["answer"])
        except ray.exceptions.RayError as error:
            first = next(iter(str(error).strip().splitlines()), "")
            raise CosetError(f"a task of Ray Data failed ({type(error).__name__}: {first})") from error


def call_far(path: list[str], work: bytes) -> Any:
    """Call a function in a worker that was not started from here, and may find fewer modules than we do."""
    sys.path += [place for place in path if place not in sys.path]
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
