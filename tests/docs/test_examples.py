"""Every example of the documentation runs: ``>>>`` in docstrings, blocks of Python in the pages."""

import doctest
import importlib
import inspect
import re
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
MODULES = [path for path in sorted(SOURCE.rglob("*.py")) if ">>>" in path.read_text()]
PAGES = [path for path in sorted(ROOT.glob("docs/**/*.md")) if "```python" in path.read_text()]
SLOW = {"reconstruction"}
"""Pages whose blocks take more than ten seconds."""

BLOCK = re.compile(r"(?P<untested><!-- no-test: [^>]+ -->\n)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


class _Finder(doctest.DocTestFinder):
    """Looks behind the wrappers of the shape checks, which seem to come from another module."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object) if callable(object) else object)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).with_suffix("").as_posix())
def test_docstrings(path):
    module = importlib.import_module(".".join(path.relative_to(SOURCE).with_suffix("").parts))
    runner = doctest.DocTestRunner()
    for test in _Finder().find(module):
        runner.run(test)
    attempted = runner.summarize(verbose=False).attempted
    assert (runner.failures, attempted) == (0, path.read_text().count(">>> "))


def _lora_files(folder: Path) -> None:
    """Two adapters of one layer, ``a`` and ``b``, as PEFT writes them."""
    from safetensors.torch import save_file

    for name in ("a", "b"):
        layer = "base_model.model.q_proj.lora_"
        (folder / name).mkdir()
        factors = {f"{layer}A.weight": torch.randn(2, 8), f"{layer}B.weight": torch.randn(6, 2)}
        save_file(factors, folder / name / "adapter_model.safetensors")


FILES = {"lol": _lora_files}
"""What a reader of a page has at hand."""


def _pages():
    return [pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * (page.stem in SLOW)) for page in PAGES]


@pytest.mark.parametrize("page", _pages())
def test_pages(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FILES.get(page.stem, lambda folder: None)(tmp_path)
    blocks = list(BLOCK.finditer(page.read_text()))
    assert len(blocks) == page.read_text().count("```python")
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in blocks:
        if block["untested"] is None:
            line = page.read_text()[: block.start("code")].count("\n")
            exec(compile("\n" * line + block["code"], page, "exec"), namespace)


SCRIPTS = sorted((ROOT / "examples" / "systems").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_scripts_of_systems(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))
    assert capsys.readouterr().out.strip()


def test_every_system_has_a_script():
    assert len(SCRIPTS) == 10
    listed = (ROOT / "docs" / "examples.md").read_text()
    assert all(f"| `{script.name}` |" in listed for script in SCRIPTS)


def test_notebooks_are_the_scripts():
    """``python release/notebooks.py`` makes them again."""
    made = runpy.run_path(str(ROOT / "release" / "notebooks.py"))["notebook_of"]
    for script in SCRIPTS:
        notebook = ROOT / "examples" / "notebooks" / f"{script.stem}.ipynb"
        assert notebook.read_text() == made(script.read_text()), notebook.name
