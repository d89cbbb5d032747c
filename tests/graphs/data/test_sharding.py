"""Tables of molecules to shards: whoever makes them, and however often they are stopped, they come out equal."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from torch_geometric.transforms import Compose

from coset.core.errors import CosetError
from coset.core.files import claimed
from coset.graphs.data import datasets
from coset.graphs.data.sharding import PLAN, Sharding, preprocess
from coset.graphs.data.shards import MANIFEST, ShardedGraphs, read_manifest
from coset.graphs.transforms import ShortestPathDistances, precompute

pytest.importorskip("pyarrow")
STEPS = Compose([ShortestPathDistances(4)])


def table(path: Path, rows: int = 40, bad: tuple[int, ...] = ()) -> Path:
    """Chains; the row numbers in ``bad`` hold no molecule."""
    lines = [f"{'C' * (1 + i % 9)}{'O' * (i % 3)},{i}.5,m{i}" for i in range(rows)]
    for number in bad:
        lines[number - 2] = f"C1CC,{number}.5,broken"
    path.write_text("smiles,y,name\n" + "\n".join(lines) + "\n")
    return path


def made(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.arrow"))}


def sharding(file: Path, **options) -> Sharding:
    return Sharding((file,), STEPS, targets="y", id="name", **{"shard_rows": 7, **options})


@pytest.fixture
def file(tmp_path):
    return table(tmp_path / "chains.csv")


@pytest.fixture
def undisturbed(file, tmp_path):
    preprocess(sharding(file), tmp_path / "undisturbed", quiet=True)
    return made(tmp_path / "undisturbed")


def test_shards_hold_what_reading_and_encoding_gives(file, tmp_path, undisturbed):
    result = preprocess(sharding(file), tmp_path / "undisturbed", quiet=True)
    assert (result["graphs"], result["shards"], result["made"]) == (40, 6, 0)
    whole = datasets.csv(file, targets="y", id="name", split=None)
    for one, other in zip(ShardedGraphs(tmp_path / "undisturbed"), precompute(whole.graphs, STEPS), strict=True):
        assert one.to_dict().keys() == other.to_dict().keys()
        assert all(str(one[key]) == str(other[key]) for key in one.to_dict())
    assert not (tmp_path / "undisturbed" / "rows").exists()


def test_shards_of_reactions_know_their_columns(tmp_path):
    file, reaction = tmp_path / "reactions.csv", "[CH3:1][OH:2]>>[CH2:1]=[O:2]"
    file.write_text("smiles,y\n" + f"{reaction},1.0\n" * 3)
    preprocess(Sharding((file,), STEPS, targets="y", shard_rows=2), tmp_path / "shards", quiet=True)
    about, whole = read_manifest(tmp_path / "shards" / MANIFEST), datasets.csv(file, targets="y", split=None)
    assert (about["node_features"], about["edge_features"]) == (whole.node_features, whole.edge_features)
    file.write_text(f"smiles,y\n{reaction},1.0\nCCO,2.0\n")
    with pytest.raises(CosetError, match="some rows are reactions and some are molecules"):
        preprocess(Sharding((file,), STEPS, targets="y", shard_rows=1), tmp_path / "mixed", quiet=True)


def test_rows_that_a_kill_has_left_go_with_the_next_call(file, tmp_path, undisturbed):
    """Killed after the last file was written, before its working copies of the rows were removed."""
    (tmp_path / "undisturbed" / "rows").mkdir()
    (tmp_path / "undisturbed" / "rows" / "000000.csv").touch()
    assert preprocess(sharding(file), tmp_path / "undisturbed", quiet=True)["made"] == 0
    assert not (tmp_path / "undisturbed" / "rows").exists()


def test_several_files_and_what_is_missing(file, tmp_path, undisturbed):
    """A stop at any place: parts not cut, shards not made, half of one written."""
    folder = tmp_path / "shards"
    both = Sharding((file, table(tmp_path / "more.csv", 3)), STEPS, targets="y", shard_rows=7)
    assert preprocess(both, folder, quiet=True)["graphs"] == 43
    before = made(folder)
    for name in ("shards.json", "parts.json", "000002.arrow", "000006.arrow"):
        (folder / name).unlink()
    (folder / ".000002.arrow.abc").write_bytes(b"half")
    assert preprocess(both, folder, quiet=True)["made"] == 2
    assert made(folder) == before


def test_bad_rows_are_named_or_skipped(tmp_path):
    file, folder = table(tmp_path / "bad.csv", bad=(9, 30)), tmp_path / "shards"
    with pytest.raises(CosetError, match=r"bad\.csv, row 9: unparsable SMILES 'C1CC'.*--skip-bad-rows.*1 more of 6"):
        preprocess(sharding(file), folder, quiet=True)
    assert len(made(folder)) == 4
    result = preprocess(sharding(file), folder, skip_bad_rows=True, quiet=True)
    assert (result["graphs"], result["made"]) == (38, 2)
    assert result["notes"] == [f"{file}: skipped 2 unparsable rows: 9, 30"]


def test_other_shards_are_left_alone(file, tmp_path, undisturbed):
    folder = tmp_path / "undisturbed"
    with pytest.raises(CosetError, match="was made with another shard-rows"):
        preprocess(sharding(file, shard_rows=9), folder)
    table(file, rows=41)
    with pytest.raises(CosetError, match="was made with another files"):
        preprocess(sharding(file), folder)
    with pytest.raises(CosetError, match="is not empty and holds no shards"):
        preprocess(sharding(file), tmp_path)
    with pytest.raises(CosetError, match="has no column 'smile'"):
        preprocess(sharding(file, smiles="smile"), tmp_path / "new")
    with pytest.raises(CosetError, match="engine 'slurm'"):
        preprocess(sharding(file), tmp_path / "new", engine="slurm")
    assert not (tmp_path / "new").exists()
    assert made(folder) == undisturbed
    assert json.loads((folder / PLAN).read_text())["targets"] == ["y"]


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(file, tmp_path, undisturbed):
    """SIGKILL to every process that works on it, once: each is started again."""
    folder, killed = tmp_path / "shards", []

    def kill() -> None:
        deadline = time.monotonic() + 60
        while len(killed) < 2 and time.monotonic() < deadline:
            for entry in Path("/proc").glob("[0-9]*"):
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    mine = parent == os.getpid() and b"spawn_main" in (entry / "cmdline").read_bytes()
                except (OSError, ValueError):
                    continue
                if mine and entry.name not in killed and len(killed) < 2:
                    killed.append(entry.name)
                    os.kill(int(entry.name), signal.SIGKILL)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    preprocess(sharding(file), folder, workers=2, quiet=True)
    thread.join()
    assert len(killed) == 2
    assert made(folder) == undisturbed


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_of_a_cluster_that_is_lost_loses_nothing(file, tmp_path, undisturbed):
    """Ray Data on two nodes of one core each, of which one is taken away once the first shard is there."""
    pytest.importorskip("ray.data")
    folder = tmp_path / "shards"
    script = f"""
import os, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from test_sharding import sharding
from coset.core.files import claimed
from coset.graphs.data.sharding import preprocess
small = {{"num_cpus": 1, "object_store_memory": 100_000_000}}
cluster = Cluster(initialize_head=True, head_node_args=small)
lost = cluster.add_node(**small)
os.environ["RAY_ADDRESS"] = cluster.address
def lose():
    while not list(Path({str(folder)!r}).glob("*.arrow")):
        time.sleep(0.02)
    cluster.remove_node(lost, allow_graceful=False)
thread = threading.Thread(target=lose)
thread.start()
print(preprocess(sharding(Path({str(file)!r})), Path({str(folder)!r}), engine="ray", workers=2, quiet=True)["made"])
thread.join()
"""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "6"
    assert made(folder) == undisturbed


def test_a_change_far_into_a_table_that_keeps_its_size_is_seen(tmp_path):
    file, folder = tmp_path / "long.csv", tmp_path / "shards"
    file.write_text("smiles,y,name\n" + f"C,1.5,{'m' * 100_000}\n" * 11 + "CO,2.5,n\n")
    preprocess(sharding(file), folder, quiet=True)
    file.write_text(file.read_text().replace("CO,2.5", "CO,9.5"))
    with pytest.raises(CosetError, match="was made with another files"):
        preprocess(sharding(file), folder, quiet=True)


def test_a_mended_table_goes_on_in_its_folder(tmp_path):
    file, folder = table(tmp_path / "a.csv", bad=(9,)), tmp_path / "shards"
    with pytest.raises(CosetError, match=r"a\.csv, row 9: unparsable SMILES"):
        preprocess(sharding(file), folder, quiet=True)
    kept = made(folder)
    table(file)
    result = preprocess(sharding(file), folder, quiet=True)
    assert result["made"] < result["shards"]  # those of rows that were right are not made again
    assert kept.items() <= made(folder).items()
    preprocess(sharding(file), tmp_path / "undisturbed", quiet=True)
    assert made(folder) == made(tmp_path / "undisturbed")


def test_a_folder_of_shards_is_for_one_process(file, tmp_path):
    (tmp_path / "shards").mkdir()
    with (
        claimed(tmp_path / "shards" / ".lock", tmp_path / "shards"),
        pytest.raises(CosetError, match=r"shards is in use by process \d+ on "),
    ):
        preprocess(sharding(file), tmp_path / "shards", quiet=True)
