"""Jobs on processes and on Ray: every outcome is reported, whatever happens to the process that worked on it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coset.core.errors import CosetError
from coset.runs.launch.jobs import Job, Outcome, run_jobs
from coset.runs.signals import Stopped


def double(number):
    return {"twice": 2 * number}


def fail(message):
    raise CosetError(message)


def divide():
    return 1 / 0


def die_until(times, folder):
    """Kills its process the first few times, each of which leaves a mark."""
    marks = len(list(Path(folder).iterdir()))
    if marks < times:
        (Path(folder) / f"{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return marks


def process_id(number):
    return number, os.getpid()


def say_when_stopped(file):
    Path(file).touch()
    try:
        time.sleep(600)
    except Stopped as stop:
        Path(file).write_text(stop.name)
        raise


def wait_for_ever(folder):
    (Path(folder) / f"{os.getpid()}").touch()
    time.sleep(600)


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_every_outcome_is_reported(engine, tmp_path):
    if engine == "ray":
        pytest.importorskip("ray")
    folders = [tmp_path / name for name in ("once", "always")]
    for folder in folders:
        folder.mkdir()
    jobs = [
        Job("two", double, (1,)),
        Job("mistake", fail, ("column logP is missing",)),
        Job("fault", divide),
        Job("killed once", die_until, (1, str(folders[0]))),
        Job("killed always", die_until, (99, str(folders[1]))),
    ]
    found = {outcome.name: outcome for outcome in run_jobs(jobs, engine, workers=2, retries=1, threads=1)}
    assert set(found) == {job.name for job in jobs}
    assert (found["two"].result, found["two"].error) == ({"twice": 2}, None)
    assert found["mistake"].error == "column logP is missing"
    assert found["fault"].error == "ZeroDivisionError: division by zero"
    assert (found["killed once"].result, found["killed once"].error) == (1, None)
    assert "its process died" in found["killed always"].error
    assert len(list(folders[1].iterdir())) == 2  # tried twice, not more


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_jobs_can_depend_on_the_outcomes_before(engine):
    """Those that are no sequence are asked for one by one; on this machine one process serves them all."""
    if engine == "ray":
        pytest.importorskip("ray")
    found = [Outcome("", {"twice": 1}, None, 0.0)]

    def doubling():
        while found[-1].result["twice"] < 50:
            yield Job(f"twice {found[-1].result['twice']}", double, (found[-1].result["twice"],))

    for outcome in run_jobs(doubling(), engine, workers=1, threads=1):
        found.append(outcome)
    assert [outcome.result["twice"] for outcome in found] == [1, 2, 4, 8, 16, 32, 64]


def test_one_process_serves_one_job_after_the_other():
    jobs = [Job(str(number), process_id, (number,)) for number in range(6)]
    found = [outcome.result for outcome in run_jobs(jobs, workers=2, threads=1)]
    assert sorted(number for number, _ in found) == list(range(6))
    assert len({process for _, process in found}) <= 2


def test_jobs_that_are_not_waited_for_are_told_to_stop(tmp_path):
    """Whoever leaves the outcomes leaves no process behind, and each can say how far it came."""
    jobs = [Job("short", double, (1,)), Job("long", say_when_stopped, (str(tmp_path / "said"),))]
    outcomes = run_jobs(jobs, workers=2, threads=1)
    next(outcomes)
    while not (tmp_path / "said").is_file():
        time.sleep(0.05)
    outcomes.close()
    assert (tmp_path / "said").read_text() == "SIGTERM"


def test_processes_killed_at_random_lose_nothing(tmp_path):
    """Ten kills at random: every job still ends, each with its own answer."""
    generator, folders = random.Random(0), []
    for number in range(6):
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
    kills = [0] * 6
    for _ in range(10):
        kills[generator.randrange(6)] += 1
    jobs = [Job(str(i), die_until, (kills[i], str(folders[i]))) for i in range(6)]
    found = {outcome.name: outcome.result for outcome in run_jobs(jobs, workers=2, retries=max(kills), threads=1)}
    assert found == {str(i): kills[i] for i in range(6)}


def test_jobs_end_with_their_driver(tmp_path):
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_jobs import wait_for_ever\n"
        "from coset.runs.launch.jobs import Job, run_jobs\n"
        f"if __name__ == '__main__': list(run_jobs([Job('long', wait_for_ever, ({str(tmp_path)!r},))], threads=1))\n"
    )
    (tmp_path / "marks").mkdir()
    (tmp_path / "driver.py").write_text(script.replace(repr(str(tmp_path)), repr(str(tmp_path / "marks"))))
    driver = subprocess.Popen([sys.executable, str(tmp_path / "driver.py")])
    deadline = time.monotonic() + 120
    while not (marks := list((tmp_path / "marks").iterdir())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert marks
    driver.kill()
    driver.wait()
    while _alive(int(marks[0].name)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(int(marks[0].name))


def _alive(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_mistakes_are_named():
    with pytest.raises(CosetError, match="engine 'slurm': choose local or ray"):
        run_jobs([], "slurm")
    with pytest.raises(CosetError, match="two jobs are called 'a'"):
        run_jobs([Job("a", double, (1,)), Job("a", double, (2,))])
    with pytest.raises(CosetError, match="workers=0 must be at least 1"):
        run_jobs([], workers=0)


def test_a_script_that_starts_processes_wherever_it_is_imported_is_told(tmp_path):
    """Each process imports the script that starts it: without a guard it would start processes, too."""
    script = tmp_path / "script.py"
    script.write_text(
        "from coset.runs.launch.jobs import Job, run_jobs\n"
        "print(list(run_jobs([Job(name, str, ('1',)) for name in 'ab'])))\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "belongs under if __name__ == '__main__':" in ran.stderr.splitlines()[-1]
