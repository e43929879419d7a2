"""The shape of the package: which module may import which, how long each is, what an import costs and exports."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import anykernel

PACKAGE = Path(anykernel.__file__).parent
MODULES = {path.stem: path for path in sorted(PACKAGE.glob("*.py"))}
MAX_LINES = 480

# From the bottom to the top. A module may import those below and beside it, and none above it.
LAYERS = [
    ("_exceptions", "_messages", "_queue", "_tasks"),
    ("_wire", "_outputs", "_displays", "_result", "_connection", "_kernelspec", "_values"),
    ("_transport",),
    ("_zmq", "_process", "_record"),
    ("_script",),
    ("_router", "_handlers", "_watch", "_stopping", "_execution", "_dispatcher", "_comms", "_debugger"),
    ("_variables",),
    ("_requests", "_shell", "_subshell", "_kernel"),
    ("_owner", "_lifecycle", "_open", "_replay"),
    ("__init__",),
    ("__main__",),
]
LEVELS = {module: level for level, modules in enumerate(LAYERS) for module in modules}


def imports_of(path):
    """The modules of this package that a module imports when it is run; not those its annotations alone need."""
    found = set()
    nodes = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            nodes.extend(node.orelse)
            continue
        nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.ImportFrom) and (node.level == 1 or node.module == "anykernel"):
            found.update([node.module] if node.level and node.module else [alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("anykernel."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("anykernel."))
    return {name for name in found if name in MODULES}


def python(*argv):
    """What a fresh interpreter prints."""
    run = subprocess.run([sys.executable, "-c", *argv], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_every_module_has_its_layer_and_every_layer_its_modules():
    assert set(MODULES) == set(LEVELS)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_is_below_or_beside_it(module):
    assert {name for name in imports_of(MODULES[module]) if LEVELS[name] > LEVELS[module]} == set()


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: imports_of(path) for module, path in MODULES.items()}
    assert "_messages" in graph["_wire"]
    assert "_outputs" in graph["_result"]
    TopologicalSorter(graph).prepare()


def test_what_does_no_io_imports_nothing_that_does():
    io = {"anyio", "asyncio", "trio", "zmq", "socket", "selectors", "subprocess", "threading"}
    for module in ("_exceptions", "_messages", "_wire", "_outputs", "_result"):
        tree = ast.parse(MODULES[module].read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
        assert {name.split(".")[0] for name in names} & io == set(), module


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_longer_than_can_be_read(module):
    assert len(MODULES[module].read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module):
    assert ast.get_docstring(ast.parse(MODULES[module].read_text()))


def test_importing_the_package_does_not_import_what_takes_long():
    imported = set(python("import anykernel, sys; print(*sys.modules)").split())
    assert "anykernel" in imported
    assert imported & {"jupyter_client", "jupyter_core", "traitlets", "IPython", "ipykernel", "trio", "uvloop"} == set()
    assert imported & {"hashlib", "shutil", "socket", "subprocess", "tempfile", "anykernel._lifecycle"} == set()


def test_every_exported_name_exists_once():
    assert len(set(anykernel.__all__)) == len(anykernel.__all__)
    assert [name for name in anykernel.__all__ if not hasattr(anykernel, name)] == []


def test_every_exported_class_and_function_has_a_docstring_of_its_own():
    undocumented = []
    for name in anykernel.__all__:
        exported = getattr(anykernel, name)
        if not (inspect.isclass(exported) or inspect.isroutine(exported)):
            continue  # an alias of a type
        # A class without one shows that of its base.
        docstring = vars(exported).get("__doc__") if inspect.isclass(exported) else exported.__doc__
        if not docstring:
            undocumented.append(name)
    assert undocumented == []


def test_everything_public_that_an_exported_class_defines_is_documented():
    undocumented = []
    for name in anykernel.__all__:
        exported = getattr(anykernel, name)
        for attribute, value in vars(exported).items() if inspect.isclass(exported) else ():
            is_method = inspect.isroutine(value) or isinstance(value, property)
            if is_method and not attribute.startswith("_") and not inspect.getdoc(getattr(exported, attribute)):
                undocumented.append(f"{name}.{attribute}")
    assert undocumented == []


def test_every_error_is_exported_and_comes_from_one_base():
    errors = {
        name
        for name, value in vars(anykernel._exceptions).items()
        if inspect.isclass(value) and issubclass(value, Exception) and not name.startswith("_")
    }
    assert errors <= set(anykernel.__all__)
    assert {name for name in anykernel.__all__ if name.endswith("Error")} == errors
    assert all(issubclass(getattr(anykernel, name), anykernel.AnyKernelError) for name in errors)


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
