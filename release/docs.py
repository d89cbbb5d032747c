"""A hook of MkDocs: pages made from the code (commands, configuration, data sets), and roles of docstrings as links.

A page asks for its table by ``<!-- made: commands -->`` and the like.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterator
from html import escape
from typing import Any, get_args, get_type_hints

ROLE = re.compile(r":(?:class|func|mod|data|meth|attr|exc|obj):<code>(.*?)</code>")
MADE = re.compile(r"<!-- made: ([\w-]+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables in."""
    return MADE.sub(lambda found: PAGES[found[1]](), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Roles of Sphinx in docstrings become plain names: ``:class:`coset.graphs.Learner``` is ``Learner``."""
    return ROLE.sub(lambda found: f"<code>{plain_name(found[1])}</code>", html)


def plain_name(name: str) -> str:
    """The last part of a dotted name, and of ``title <name>`` the title."""
    title, bracket, _ = name.partition(" &lt;")
    return title if bracket else name.lstrip("~").rpartition(".")[2]


def commands() -> str:
    """A section a command: what it does, its arguments and options, its examples."""
    from coset import cli
    from coset.core.commands import COMMANDS

    functions = {**cli.OWN, **dict(COMMANDS.items())}
    return "\n".join(line for name in sorted(functions) for line in _command(name, functions[name]))


def _command(name: str, function: Callable[..., None]) -> Iterator[str]:
    text = inspect.getdoc(function) or ""
    examples = re.findall(r"^Example: (.*(?:\n(?!\s*\n).+)*)", text, re.MULTILINE)
    said = re.sub(r"^Example: .*(?:\n(?!\s*\n).+)*", "", text, flags=re.MULTILINE)
    yield from (f"## coset {name}", "", " ".join(said.split()), "")
    if examples:
        yield from ("```bash", *(" ".join(example.split()) for example in examples), "```", "")
    yield from ("| argument | what it is | default |", "| --- | --- | --- |")
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        yield _argument(parameter, hints[parameter.name])
    if "json" not in hints:
        yield "| `--json` | Print JSON. | no |"
    yield ""


def _argument(parameter: inspect.Parameter, hint: Any) -> str:
    about = next((part for part in getattr(hint, "__metadata__", ()) if hasattr(part, "help")), None)
    is_option = type(about).__name__ == "OptionInfo"
    declared = [name for name in getattr(about, "param_decls", None) or () if name.startswith("--")]
    name = declared[0] if declared else f"--{parameter.name.replace('_', '-')}" if is_option else parameter.name.upper()
    default = parameter.default
    shown = "" if default is None else "needed" if default is inspect.Parameter.empty else f"`{default}`"
    shown = {"`True`": "yes", "`False`": "no"}.get(shown, shown)
    return f"| `{name}` | {_cell(getattr(about, 'help', None) or '')} | {_cell(shown)} |"


def configuration() -> str:
    """A table of keys for every kind of run, and one for every choice of a model, of data, ..."""
    from coset.runs import recipes

    lines: list[str] = []
    registries: dict[str, Any] = {}
    for kind, place in sorted(recipes.kinds().items()):
        schema = recipes._schema(place)
        lines += [f"## kind: {kind}", "", " ".join((schema.__doc__ or "").split()), "", *HEAD]
        lines += [*_keys(schema, "", registries), ""]
    for what, registry in sorted(registries.items()):
        lines += [f"## {what[0].upper()}{what[1:]}", ""]
        for options in sorted(registry.classes(), key=lambda each: each.__name__):
            names = ", ".join(f"`{name}`" for name in get_args(options.model_fields["name"].annotation))
            about = " ".join((options.__doc__ or "").split("\n\n")[0].split())
            rows = list(_keys(options, "", registries, skip=("name",)))
            lines += [f"### name: {names.replace('`', '')}", "", about, "", *([*HEAD, *rows, ""] if rows else [])]
    return "\n".join(lines)


HEAD = ("| key | type | default | what it is |", "| --- | --- | --- | --- |")


def _keys(schema: Any, prefix: str, registries: dict[str, Any], skip: tuple[str, ...] = ()) -> Iterator[str]:
    from coset.core.choices import Choice
    from coset.core.options import Options

    for name, field in schema.model_fields.items():
        if name in skip:
            continue
        choice = next((part for part in field.metadata if isinstance(part, Choice)), None)
        default = "needed" if field.is_required() else f"`{_default(field)}`"
        if choice is not None:
            registries[choice.registry.what] = choice.registry
            yield f"| `{prefix}{name}` | a {choice.registry.what} | | {_cell(field.description or 'see below')} |"
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Options):
            yield from _keys(field.annotation, f"{prefix}{name}.", registries)
        else:
            kind = _cell(_type(field.annotation))
            yield f"| `{prefix}{name}` | {kind} | {_cell(default)} | {_cell(field.description or '')} |"


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=False)
    if field.default_factory:
        return "its own defaults"
    return (
        {None: "null", True: "true", False: "false", "": '""'}.get(value, str(value))
        if _is_plain(value)
        else str(value)
    )


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | str)


def _type(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    if isinstance(annotation, types.UnionType) or getattr(annotation, "__origin__", None) is not None:
        text = str(annotation).replace("typing.", "").replace("NoneType", "null").replace("None", "null")
        text = re.sub(r"Literal\[(.*?)\]", lambda found: found[1].replace("'", ""), text)
        return re.sub(r"\b[\w.]+\.([A-Z]\w+)", r"\1", text)
    return getattr(annotation, "__name__", str(annotation))


def data_sets() -> str:
    """A row a data set: what it is, its licence, how it is had."""
    from coset.core.data_sets import DATA_SETS

    lines = ["| data set | what it is | licence | download | how |", "| --- | --- | --- | --- | --- |"]
    for _, each in DATA_SETS.items():
        size = f"{each.size / 1e6:.1f} MB" if each.size else ""
        lines.append(f"| `{each.name}` | {_cell(each.what)} | {_cell(each.licence)} | {size} | {_cell(each.how)} |")
    urls = [
        f"| `{each.name}` | <{part.url}> | {f'`{part.checksum}`' if part.checksum else 'none known'} |"
        for _, each in DATA_SETS.items()
        for part in each.downloads
    ]
    return "\n".join([*lines, "", "| data set | from | checksum |", "| --- | --- | --- |", *urls])


def _cell(text: str) -> str:
    """Text in a cell of a table."""
    in_code = text.startswith("`")
    return (text if in_code else escape(text, quote=False)).replace("|", "\\|")


PAGES = {"commands": commands, "configuration": configuration, "data-sets": data_sets}
