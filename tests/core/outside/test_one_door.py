"""No module but those of ``core.outside`` opens a file that may be a stranger's."""

import ast
from pathlib import Path

import pytest

import coset

ROOT = Path(coset.__path__[0])
READERS = {
    "read_text", "read_bytes", "read_csv", "load_file", "safe_open", "memory_map", "open_file", "open_memmap",
    "safe_load", "genfromtxt", "loadtxt", "fromfile", "from_file", "full_load",
}  # fmt: skip
OF_MODULES = {
    "np": {"load"}, "numpy": {"load"}, "torch": {"load"}, "json": {"load", "loads"}, "pickle": {"load", "loads"},
    "yaml": {"load", "safe_load"}, "OmegaConf": {"load", "from_dotlist"}, "gzip": {"open"}, "tarfile": {"open"},
    "zipfile": {"ZipFile"}, "bz2": {"open"}, "lzma": {"open"}, "Image": {"open"}, "csv": {"reader"},
}  # fmt: skip
ALLOWED = {
    ("core/files.py", "open"): "writes",
    ("core/files.py", "read_text"): "who holds a lock",
    ("runs/launch/jobs.py", "pickle.loads"): "what its own processes say to one another",
    # The package's own files.
    ("reports/page.py", "read_text"): "templates of the package",
    ("reports/page.py", "read_bytes"): "figures of the package, packed",
    ("runs/data_needed.py", "yaml.load"): "recipes of the package, a hundred at once",
    # What has been downloaded, held to its checksum, and is converted at once.
    ("core/downloads.py", "read_bytes"): "a download",
    ("graphs/data/conversions.py", "zipfile.ZipFile"): "a download; members are held to their sizes",
    ("graphs/data/conversions.py", "open"): "a member of it",
    ("weights/conversions.py", "tarfile.open"): "a download; as many bytes as its pictures have are read",
    ("motion/viewer.py", "resources"): "a template of the package",
    # What is no file of a stranger's.
    ("reports/page.py", "json.loads"): "Plotly's own text of a figure",
    ("runs/terminal.py", "json.loads"): "what a command has printed itself",
    ("motion/models/checkpoint.py", "json.loads"): "the header of what it has just made",
    ("graphs/hub.py", "from_pretrained without trust_remote_code=False"): "huggingface_hub's mixin, which downloads; "
    "what reads is ours",
    ("weights/merging/merge_file.py", "read_text"): "/proc/self/status",
    ("core/machine.py", "read_text"): "/proc/meminfo",
    ("weights/lora/data/zoo.py", "open_memmap"): "the collection that is being written",
    ("weights/checksums.py", "open"): "checksums of files that are checked to be regular before",
    ("graphs/data/sharding.py", "open"): "the first megabyte of a table, whose columns were read before",
    ("topology/data/meshes.py", "tarfile.open"): "an archive of Debian's",
    ("graphs/benches/brec_protocol.py", "open"): "its own verdicts, to add a line",
    ("graphs/benches/brec_protocol.py", "loads"): "lines of its own verdicts",
}


def calls(tree):
    """Calls that open something, by a short name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in {"open", "loads", *READERS}:
            if function.id not in IMPORTED:
                yield function.id, node
        elif isinstance(function, ast.Attribute):
            owner = ast.unparse(function.value)
            if function.attr in OF_MODULES.get(owner, ()):
                yield f"{owner}.{function.attr}", node
            elif function.attr in READERS:
                yield ("resources" if owner.startswith("resources.") else function.attr), node
            elif function.attr == "open" and _reads(node):
                yield "open", node
            elif function.attr == "from_pretrained":
                told = {each.arg: ast.unparse(each.value) for each in node.keywords}
                if told.get("trust_remote_code") != "False":
                    yield "from_pretrained without trust_remote_code=False", node


IMPORTED = {"read_text", "read_bytes"}  # of core.outside, where they are names and no methods


def _reads(call):
    """``path.open()`` for anything but writing anew."""
    modes = [each.value for each in (*call.args, *(k.value for k in call.keywords)) if isinstance(each, ast.Constant)]
    return not any(isinstance(mode, str) and set(mode) & set("wx") for mode in modes) and not _is_source(call)


def _is_source(call):
    """``source.open(folder, seed)`` of makers of adapters opens no file."""
    return len(call.args) == 2


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_files_are_opened_by_core_outside_alone(file):
    name = file.relative_to(ROOT).as_posix()
    if name.startswith("core/outside/"):
        return
    found = [(what, node.lineno) for what, node in calls(ast.parse(file.read_text())) if (name, what) not in ALLOWED]
    assert not found, f"{name} opens files by itself: {found}; use coset.core.outside"


def test_what_is_allowed_is_still_there():
    there = {
        (file.relative_to(ROOT).as_posix(), what)
        for file in ROOT.rglob("*.py")
        for what, _ in calls(ast.parse(file.read_text()))
    }
    assert set(ALLOWED) <= there


@pytest.mark.parametrize(
    "code",
    [
        "open('a')", "Path('a').read_text()", "p.open()", "np.load(p)", "torch.load(p, weights_only=True)",
        "json.loads(text)", "yaml.safe_load(t)", "OmegaConf.load(p)", "gzip.open(p)", "pd.read_csv(p)",
        "safetensors.safe_open(p, 'pt')", "AutoModel.from_pretrained(p)", "pa.memory_map(p)",
    ],
)  # fmt: skip
def test_the_check_sees(code):
    assert list(calls(ast.parse(code)))


def test_every_page_has_a_policy():
    pages = [file for suffix in ("html", "j2") for file in ROOT.rglob(f"*.{suffix}")]
    whole = [file for file in pages if "<head>" in file.read_text()]
    assert whole
    for file in whole:
        assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in file.read_text(), file
