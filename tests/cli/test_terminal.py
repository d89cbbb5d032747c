"""What files name is printed so that no terminal obeys it, and nothing in it is taken for markup."""

import io

import pytest
import torch

from coset.core.errors import CosetError, printable
from coset.graphs.data import datasets
from coset.runs.terminal import Console
from coset.weights.lora import LoraAdapter, LoraPair, save_peft

pytest.importorskip("safetensors")

CLEARS = "\x1b[2J"
LINK = "\x1b]8;;http://example.org\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with äöü, \u00a0 and 漢字", "plain, with äöü, \u00a0 and 漢字"),
        (f"a{CLEARS}b", "a\\x1b[2Jb"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udc80", "\\udc80"),
        ("\x9b2J", "\\x9b2J"),
    ],
)
def test_what_a_terminal_obeys_is_written_as_an_escape(text, shown):
    assert printable(text) == shown


def test_an_error_is_one_line_whatever_it_quotes():
    assert str(CosetError(f"{CLEARS} holds a\r\n  b\x0bc\u2028d")) == "\\x1b[2J holds a b c d"


def test_the_console_prints_what_it_is_given():
    told = Console()
    told.file = io.StringIO()
    told.print(f"[red]not red[/red] :smile: [/never opened] {LINK}", soft_wrap=True)
    assert told.file.getvalue() == "[red]not red[/red] :smile: [/never opened] \\x1b]8;;http://example.org\\x07\n"


def test_layers_of_an_adapter_may_be_called_anything(coset, tmp_path):
    names = ("a[/red]", "[bold]b", f"c{CLEARS}", ":bug:")
    pairs = {name: LoraPair(torch.randn(3, 2), torch.randn(3, 2)) for name in names}
    save_peft(LoraAdapter(pairs, f"evil{CLEARS}"), tmp_path / "adapter")
    code, said, problems = coset("lora", "inspect", str(tmp_path / "adapter"))
    assert code == 0, problems
    assert "\x1b" not in said + problems
    assert all(printable(name) in said for name in names)


def test_a_column_that_clears_the_screen_is_told_as_text(tmp_path):
    (tmp_path / "a.csv").write_text(f"smiles,{CLEARS}\nCCO,1\nCCN,2\n")
    with pytest.raises(CosetError) as told:
        datasets.csv(tmp_path / "a.csv", "smiles", "y")
    assert "\\x1b[2J" in str(told.value)
    assert "\x1b" not in str(told.value)
