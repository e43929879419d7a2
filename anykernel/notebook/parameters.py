"""Parameters of notebooks: found by the cell that is tagged so, and set by a cell put in behind it.

As papermill does it: the first cell tagged ``parameters`` has the defaults; the injected one, tagged ``injected-parameters``,
overrides them, and replaces one from an earlier run. How values are written in a language is a small table, `LITERALS`,
to which others may be added.
"""

import ast
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import nbformat
from nbformat import NotebookNode

from .._protocol import ArgumentError
from .reading import read_notebook
from .report import has_tag

__all__ = ["LITERALS", "Parameter", "convert", "find_parameters", "inject", "inspect_parameters"]

PARAMETERS = "parameters"
INJECTED = "injected-parameters"


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a notebook, as its default tells it."""

    name: str
    type: str | None
    """Of the annotation, the type comment, or the default: ``"int"``, ``"str"``, ...; None where nothing tells."""
    default: Any
    """The value, where it is a literal; else its source."""
    source: str
    """The default as it is written."""
    help: str = ""
    """The comment behind it."""


async def inspect_parameters(notebook: Any) -> dict[str, Parameter]:
    """The parameters that a notebook has, by name: what is assigned in its cell tagged ``parameters``.

    Takes what `run_notebook` takes. They are found in Python notebooks, and by simple assignments in others.

    Raises:
        ArgumentError: it is no notebook.
    """
    return find_parameters(read_notebook(notebook))


def find_parameters(node: NotebookNode) -> dict[str, Parameter]:
    """The parameters of a notebook that was read."""
    cell = next((cell for cell in node.cells if cell.cell_type == "code" and has_tag(cell, PARAMETERS)), None)
    if cell is None:
        return {}
    if language_of(node) == "python":
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:
            tree = None
        if tree is not None:
            return dict(_in_python(tree, cell.source))
    return {
        match["name"]: Parameter(match["name"], None, _literal(match["value"]), match["value"], match["help"] or "")
        for match in _ASSIGNMENT.finditer(cell.source)
    }


_ASSIGNMENT = re.compile(
    r"^\s*(?:val |var |let |const |export )?(?P<name>[A-Za-z_][\w.]*)\s*(?:=|<-)\s*(?P<value>.+?);?\s*(?:(?:#|//)\s*(?P<help>.*))?$",
    re.MULTILINE,
)


def _in_python(tree: ast.Module, source: str) -> list[tuple[str, Parameter]]:
    lines, found = source.splitlines(), []
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            name, value, annotation = node.target.id, node.value, ast.unparse(node.annotation)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name, value, annotation = node.targets[0].id, node.value, None
        else:
            continue
        text = ast.unparse(value)
        default = _literal(text)
        end = lines[(node.end_lineno or 1) - 1]
        rest = end.encode()[node.end_col_offset or 0 :].decode("utf-8", "replace").strip()
        comment = rest[1:].strip() if rest.startswith("#") else ""
        if (typed := re.match(r"type:\s*([^#]+?)\s*(?:#\s*(.*))?$", comment)) is not None:
            annotation, comment = annotation or typed[1], typed[2] or ""
        if annotation is None and default is not None and not isinstance(default, _Source):
            annotation = type(default).__name__
        found.append((name, Parameter(name, annotation, default, text, comment)))
    return found


class _Source(str):
    """A default that is no literal."""

    __slots__ = ()


def _literal(source: str) -> Any:
    try:
        return ast.literal_eval(source)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return _Source(source)


_PLAIN = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict, "tuple": tuple, "set": set}


def convert(name: str, value: Any, parameter: Parameter | None) -> Any:
    """A value made to what the parameter's type wants, where nothing is lost by it.

    Raises:
        ArgumentError: it cannot be.
    """
    wanted = _PLAIN.get(parameter.type or "") if parameter is not None else None
    if wanted is None or value is None or type(value) is wanted:
        return value
    try:
        if wanted is float and isinstance(value, int | str) and not isinstance(value, bool):
            return float(value)
        if wanted is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if wanted is int and isinstance(value, str):
            return int(value)
        if wanted is bool and isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if wanted in (list, tuple) and isinstance(value, list | tuple):
            return wanted(value)
        if wanted is str and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
    except (ValueError, OverflowError):
        pass
    assert parameter is not None
    raise ArgumentError(f"parameter {name!r} is of type {parameter.type}, and cannot be {value!r:.200}")


def language_of(node: NotebookNode) -> str:
    """The language of a notebook, in lower case; ``"python"`` where it does not say."""
    metadata = node.metadata
    found = metadata.get("kernelspec", {}).get("language") or metadata.get("language_info", {}).get("name")
    return str(found or "python").lower()


# How values are written.


def _python(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_python(key)}: {_python(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_python, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_python, value)) + ("," if len(value) == 1 else "") + ")"
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}([{', '.join(sorted(map(_python, value)))}])"
    raise TypeError(f"a value of type {type(value).__name__}")


class _Literals:
    """How a language of the common kind writes values."""

    def __init__(
        self,
        assign: str,
        none: str,
        booleans: tuple[str, str],
        sequence: tuple[str, str],
        mapping: tuple[str, str, str],
        *,
        text: Callable[[str], str] = json.dumps,
        special: Mapping[str, str] | None = None,
        comment: str = "#",
    ) -> None:
        self.assign = assign
        self.comment = comment
        self._none = none
        self._booleans = booleans
        self._sequence = sequence
        self._mapping = mapping
        self._text = text
        self._special = special or {}

    def __call__(self, value: Any) -> str:
        if value is None:
            return self._none
        if isinstance(value, bool):
            return self._booleans[value]
        if isinstance(value, float) and not math.isfinite(value):
            return self._special[str(value)]
        if isinstance(value, int | float):
            return repr(value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list | tuple):
            return self._sequence[0] + ", ".join(map(self, value)) + self._sequence[1]
        if isinstance(value, dict):
            begin, between, end = self._mapping
            return begin + ", ".join(f"{self._text(str(k))}{between}{self(v)}" for k, v in value.items()) + end
        raise TypeError(f"a value of type {type(value).__name__}")


def _dollars(text: str) -> str:
    return json.dumps(text).replace("$", "\\$")


def _shell(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"


class _Python(_Literals):
    def __call__(self, value: Any) -> str:
        return _python(value)


LITERALS: dict[str, _Literals] = {
    "python": _Python("{} = {}", "None", ("False", "True"), ("[", "]"), ("{", ": ", "}")),
    "r": _Literals(
        "{} <- {}", "NULL", ("FALSE", "TRUE"), ("list(", ")"), ("list(", " = ", ")"),
        special={"inf": "Inf", "-inf": "-Inf", "nan": "NaN"},
    ),
    "julia": _Literals(
        "{} = {}", "nothing", ("false", "true"), ("[", "]"), ("Dict(", " => ", ")"),
        text=_dollars, special={"inf": "Inf", "-inf": "-Inf", "nan": "NaN"},
    ),
    "javascript": _Literals(
        "var {} = {};", "null", ("false", "true"), ("[", "]"), ("{", ": ", "}"), comment="//",
        special={"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"},
    ),
    "c#": _Literals(
        "var {} = {};", "null", ("false", "true"), ("new [] { ", " }"), ("new Dictionary<string, object>{ ", ", ", " }"),
        comment="//", special={"inf": "double.PositiveInfinity", "-inf": "double.NegativeInfinity", "nan": "double.NaN"},
    ),
    "scala": _Literals(
        "val {} = {}", "None", ("false", "true"), ("Seq(", ")"), ("Map(", " -> ", ")"), comment="//",
        special={"inf": "Double.PositiveInfinity", "-inf": "Double.NegativeInfinity", "nan": "Double.NaN"},
    ),
    "bash": _Literals("{}={}", "''", ("false", "true"), ("(", ")"), ("(", "=", ")"), text=_shell),
}  # fmt: skip
"""How parameters are written, by language (in lower case); others may be added."""
LITERALS["typescript"] = LITERALS["javascript"]
LITERALS["csharp"] = LITERALS["c#"]


def inject(node: NotebookNode, parameters: Mapping[str, Any]) -> None:
    """Put a cell that sets the parameters into a notebook, and tell of it in its metadata.

    Raises:
        ArgumentError: a name or value has no form in the notebook's language.
    """
    language = language_of(node)
    literals = LITERALS.get(language)
    if literals is None:
        known = ", ".join(sorted(LITERALS))
        raise ArgumentError(f"parameters cannot be written in {language!r}; known are {known}")
    lines = [f"{literals.comment} Parameters"]
    for name, value in parameters.items():
        if not (isinstance(name, str) and re.fullmatch(r"[^\W\d][\w.]*" if language == "r" else r"[^\W\d]\w*", name)):
            raise ArgumentError(f"{name!r} is no name for a parameter")
        try:
            lines.append(literals.assign.format(name, literals(value)))
        except (TypeError, KeyError) as exc:
            raise ArgumentError(f"parameter {name!r} has no form in {language}: {exc}") from exc
    cell = nbformat.v4.new_code_cell(source="\n".join(lines), metadata={"tags": [INJECTED]})
    cells = node.cells
    old = next((index for index, other in enumerate(cells) if has_tag(other, INJECTED)), None)
    default = next((index for index, other in enumerate(cells) if has_tag(other, PARAMETERS)), None)
    if old is not None:
        cells[old] = cell
    else:
        cells.insert(0 if default is None else default + 1, cell)
    recorded = json.loads(json.dumps(dict(parameters), default=repr))
    node.metadata.setdefault("papermill", nbformat.from_dict({}))["parameters"] = nbformat.from_dict(recorded)
