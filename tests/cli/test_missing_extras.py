"""Without a package of an extra, every command that needs it says in one line what to install."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from coset.cli import main
from coset.core.errors import EXTRAS

HERE = Path(__file__).parents[2]
COMMANDS = {
    "rdkit": ["run csv data.path=a.csv data.target=y training.epochs=1"],
    "safetensors": ["lora inspect a", "lora collect a b", "reconstruct t.npz --output o --model m.safetensors"],
    "transformers": ["run fs-merge/digits-vit --output o"],
    "sklearn": ["run asymmetric/lmc-digits --output o"],
    "cv2": ["track a.mp4 --output t.npz", "reconstruct a.mp4 --output o"],
    "toponetx": ["wl --complex a.atomlist a.atomlist"],
    "trimesh": ["wl --complex a.obj a.obj"],
    "pyarrow": ["preprocess a.csv --output o --target y"],
    "ray": ["run csv data.path=a.csv data.target=y --engine ray"],
    "optuna": [
        "sweep csv data.path=a.csv data.target=y model.width=16,24 --search tpe --samples 2 --seeds 1 --output o"
    ],
}


@pytest.mark.parametrize(
    ("module", "command"), [(module, command) for module, commands in COMMANDS.items() for command in commands]
)
def test_a_missing_package_is_named_with_its_extra(module, command, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.csv").write_text("smiles,y\n" + "".join(f"{'C' * n},{n}\n" for n in range(1, 13)))
    for name in ("a.mp4", "a.atomlist", "a.obj", "m.safetensors", "t.npz"):
        (tmp_path / name).write_text("")
    (tmp_path / "a").mkdir()
    state = {f"x.q.lora_{side}.weight": torch.ones(shape) for side, shape in (("A", (2, 3)), ("B", (3, 2)))}
    save_file(state, tmp_path / "a" / "adapter_model.safetensors")
    monkeypatch.chdir(tmp_path)
    for loaded in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("sys.argv", ["coset", *command.split(), *(["--quiet"] if "run" in command.split()[:1] else [])])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 1, error
    extra = next(extra for extra, modules in EXTRAS.items() if module in modules)
    assert "not installed: pip install" in error, error
    assert module in error
    assert f"coset[{extra}]" in error or module == "safetensors"
    assert len([line for line in error.splitlines() if line.startswith("error:")]) == 1


def test_all_that_is_missing_of_an_extra_is_named_at_once(tmp_path, monkeypatch, capsys):
    for module in ("toponetx", "trimesh", "gudhi"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a.obj").write_text("")
    monkeypatch.setattr("sys.argv", ["coset", "wl", "--complex", str(tmp_path / "a.obj"), "EhEG"])
    with pytest.raises(SystemExit):
        main()
    assert 'trimesh, toponetx, gudhi are not installed: pip install "coset[topology]"' in capsys.readouterr().err


def test_extras_are_those_of_the_package():
    extras = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - {"docs", "dev"}


@pytest.mark.slow
def test_every_module_is_imported_without_what_windows_lacks():
    code = """
import importlib, pkgutil, sys, warnings
warnings.simplefilter("ignore")
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
import coset
for found in pkgutil.walk_packages(coset.__path__, "coset."):
    if not found.name.endswith("__main__"):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if error.name in ("resource", "fcntl", "pwd", "grp", "termios"):
                import traceback
                last = traceback.extract_tb(error.__traceback__)
                if any("/coset/" in frame.filename for frame in last[-1:]):
                    print(found.name, error.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
