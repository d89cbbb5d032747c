"""The documentation hangs together: pages made from code are whole, links lead somewhere, pages have places."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml

from command_line import parsed
from coset import cli
from coset.core.commands import COMMANDS
from coset.core.data_sets import DATA_SETS
from coset.core.domains import domains
from coset.runs.listing import files
from coset.runs.recipes import kinds, load

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
SPEC = importlib.util.spec_from_file_location("hook_of_docs", ROOT / "release" / "docs.py")
HOOK = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(HOOK)


def anchors(page):
    """As MkDocs makes them of headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    heads = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads}


IMAGE = re.compile(r"!\[[^\]]+\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"")
BASH = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands_in(page):
    """What is typed in a page, as lists of words without ``coset``."""
    for block in BASH.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            typed: list[str] = []
            for word in [*shlex.split(line, comments=True), ";"]:
                if word not in ("&&", "|", ">") and not word.endswith(";"):
                    typed.append(word)
                    continue
                typed += [word.rstrip(";")] if word.rstrip(";") not in ("&&", "|", ">", "") else []
                if typed[:1] == ["coset"]:
                    yield typed[1:]
                typed = []


def test_every_command_of_the_pages_is_one():
    """Names, options and, of recipes, keys and values; nothing is run."""
    found = 0
    for page in (ROOT / "README.md", *PAGES):
        for words in commands_in(page):
            found += 1
            given = parsed(words)[1].params
            recipe = given.get("recipe")
            if words[0] == "run" and recipe in files() and not any("..." in word for word in words):
                load(recipe, given["overrides"] or [])
    assert found > 80


def test_pictures_are_there_and_small():
    shown = {page: IMAGE.findall(page.read_text()) for page in (ROOT / "README.md", *PAGES)}
    places = {(page.parent / (a or b)).resolve() for page, found in shown.items() for a, b in found}
    assert len(places) >= 10
    assert all(place.is_file() for place in places)
    assert sum(place.stat().st_size for place in places) < 600_000


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    for name in re.findall(r"\(docs/([\w-]+\.md)\)", page.read_text()):
        assert (ROOT / "docs" / name).is_file(), name


def test_every_page_is_in_the_navigation_and_every_system_has_one():
    text = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r": ([\w/-]+\.md)", text))
    assert named == {page.relative_to(ROOT / "docs").as_posix() for page in PAGES}
    for domain in domains():
        for system in domain.systems:
            assert f"{system.page}.md" in named


def test_search_works_without_a_server():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert {"search", "offline"} <= {plugin for plugin in settings["plugins"] if isinstance(plugin, str)}
    assert settings["use_directory_urls"] is False


def test_commands_are_all_described():
    made = HOOK.on_page_markdown("<!-- made: commands -->")
    for name in [*cli.OWN, *COMMANDS.names()]:
        assert f"\n## coset {name}\n" in f"\n{made}", name
    assert "| `--interval` | Share of truths inside, e.g. 0.9: adds low and high. |  |" in made
    assert "coset predict runs/mine new.csv --output predictions.csv --interval 0.9" in made


def test_all_kinds_of_run_and_all_choices_are_described():
    made = HOOK.on_page_markdown("<!-- made: configuration -->")
    for kind in kinds():
        assert f"## kind: {kind}\n" in made
    assert "| `training.epochs` | int | `100` |" in made
    assert "\n## Graph model\n" in made
    assert "\n### name: esol, bace, hiv\n" in made


def test_all_data_sets_are_described():
    made = HOOK.on_page_markdown("<!-- made: data-sets -->")
    assert all(f"| `{name}` |" in made for name in DATA_SETS.names())


def test_roles_become_plain_names():
    html = "<p>:class:<code>coset.graphs.Learner</code>, :func:<code>~a.b</code>, "
    html += ":data:<code>tables &lt;c.D&gt;</code></p>"
    assert HOOK.on_page_content(html) == "<p><code>Learner</code>, <code>b</code>, <code>tables</code></p>"
