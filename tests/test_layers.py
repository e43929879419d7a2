"""The shape of the package: who may import whom, how long each module is, what an import costs and exports.

Imports are read from the source, those for annotations included.
"""

from __future__ import annotations

import ast
import inspect
import pickle
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import anykernel

PACKAGE = Path(anykernel.__file__).parent
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
MAX_LINES = 400

# The rooms of the house, from the bottom to the top: each may import those before it, and nothing after it.
ROOMS = [
    "_version", "_protocol", "_core", "_transports", "_local", "_open",
    "launchers", "server", "pool",
    "_late", "notebook",
    "__init__", "__main__",
    "sync", "jupyter", "otel", "mcp", "_cli",
]  # fmt: skip

# Rooms that are built on what users have: of the rooms below, they take public names alone.
FACES = {"notebook", "sync", "jupyter", "otel", "mcp", "_cli"}

# What is sent into a kernel and runs there, in another process.
SENT = {"server.inside"}

# Imports that a room must not have at all.
FORBIDDEN = {
    "_protocol": {
        "anyio",
        "asyncio",
        "trio",
        "zmq",
        "socket",
        "selectors",
        "subprocess",
        "threading",
        "time",
        "pathlib",
    },
    "_core": {"zmq", "subprocess", "socket", "pathlib", "shutil", "tempfile", "signal", "jupyter_client"},
    "_transports": {"subprocess", "jupyter_client"},
    "_local": {"httpx", "httpx2", "websockets"},
    "server": {"zmq", "subprocess", "jupyter_client", "asyncio", "trio", "threading", "pathlib"},
}


def room_of(module):
    return module.split(".")[0]


def imports_of(module, source, modules=frozenset(MODULES)):
    """What a module of the package imports of it: modules (a room stands for its ``__init__``) and names of rooms."""
    package = module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                path = [*base, *(node.module.split(".") if node.module else [])]
            elif node.module and node.module.split(".")[0] == "anykernel":
                path = node.module.split(".")[1:]
            else:
                continue
            for alias in node.names:
                deeper = ".".join([*path, alias.name])
                found.add(deeper if deeper in modules else ".".join(path) or "__init__")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "anykernel":
                    found.add(".".join(alias.name.split(".")[1:]) or "__init__")
    return {name if name in modules else f"{name}.__init__" for name in found}


def graph_of(sources):
    return {module: imports_of(module, source, frozenset(sources)) for module, source in sources.items()}


def upward(graph):
    """The imports that point to a room above one's own, or past a room's ``__init__`` into it."""
    wrong = []
    for module, imported in graph.items():
        for other in imported:
            here, there = room_of(module), room_of(other)
            if here in FACES and there == "__init__":
                continue  # the public names, all of them
            if here == there:
                if other.endswith("__init__") and not module.endswith("__main__"):
                    wrong.append((module, other))  # a module does not import its own room's front
            elif ROOMS.index(there) > ROOMS.index(here) or not (other.endswith("__init__") or "." not in other):
                wrong.append((module, other))
    return wrong


def circles(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return exc.args[1]
    return []


def foreign(source):
    """The libraries that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.split(".")[0])
    return found


SOURCES = {module: path.read_text() for module, path in MODULES.items()}


def python(*argv):
    """What a fresh interpreter prints."""
    run = subprocess.run([sys.executable, "-c", *argv], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_every_module_is_in_a_room():
    assert {room_of(module) for module in MODULES} <= set(ROOMS)


def test_a_face_takes_public_names_alone():
    private = {}
    for module, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)) if room_of(module) in FACES else ():
            if isinstance(node, ast.ImportFrom) and node.level and (node.module or "").split(".")[0] in {
                "_protocol", "_core", "_transports", "_local", "_open"
            }:  # fmt: skip
                private[module] = {alias.name for alias in node.names} - set(anykernel.__all__)
    assert {module: names for module, names in private.items() if names} == {}


def test_imports_point_downward_and_by_the_front_of_each_room():
    assert upward(graph_of(SOURCES)) == []


def test_no_modules_import_each_other_in_a_circle():
    graph = graph_of(SOURCES)
    assert "_protocol.messages" in graph["_protocol.wire"]
    assert "_protocol.__init__" in graph["_core.router"]
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("_protocol.messages", "from .._core import Kernel"),
        ("_protocol.messages", "if TYPE_CHECKING:\n    from .._core import Kernel"),
        ("_core.router", "def late():\n    from .._transports.zmq import ZmqTransport"),
        ("_core.router", "from .._protocol.wire import Codec"),
        ("_core.router", "from . import Kernel"),
        ("_local.process", "import anykernel"),
    ],
)
def test_an_import_that_points_upward_is_found(module, planted):
    assert upward(graph_of({**SOURCES, module: f"{SOURCES[module]}\n{planted}\n"})) != []


@pytest.mark.parametrize(
    "planted",
    ["from .run import Run", "if TYPE_CHECKING:\n    from .run import Run", "def late():\n    from . import run"],
)
def test_a_circle_is_found(planted):
    assert circles(graph_of({**SOURCES, "_core.dispatcher": f"{SOURCES['_core.dispatcher']}\n{planted}\n"})) != []


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_touches_only_what_it_may(room):
    touched = {
        module: foreign(source) & FORBIDDEN[room]
        for module, source in SOURCES.items()
        if room_of(module) == room and module not in SENT
    }
    assert {module: names for module, names in touched.items() if names} == {}


@pytest.mark.parametrize("room", ["_protocol", "_core", "_transports", "_local"])
def test_a_room_hands_out_what_others_use_and_nothing_else(room):
    front = set(__import__(f"anykernel.{room}", fromlist=["__all__"]).__all__)
    used = set()
    for module, source in SOURCES.items():
        if room_of(module) == room:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.level and node.module == room:
                used |= {alias.name for alias in node.names}
    tested = set()
    for path in Path(__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == f"anykernel.{room}":
                tested |= {alias.name for alias in node.names}
    assert used <= front
    assert front <= used | tested


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_longer_than_can_be_read(module):
    assert len(MODULES[module].read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module):
    assert ast.get_docstring(ast.parse(MODULES[module].read_text()))


def test_importing_the_package_does_not_import_what_takes_long():
    # What its dependencies import anyway is their business: anyio's uuid takes subprocess along in Python 3.10.
    given = set(python("import anyio, msgspec, sys; print(*sys.modules)").split())
    imported = set(python("import anykernel, sys; print(*sys.modules)").split()) - given
    assert "anykernel" in imported
    assert imported & {"jupyter_client", "jupyter_core", "traitlets", "IPython", "ipykernel", "trio", "uvloop"} == set()
    assert imported & {"hashlib", "shutil", "socket", "subprocess", "tempfile", "zmq", "anykernel._local"} == set()


def is_class(value: object) -> bool:
    """As `inspect.isclass`, which takes ``Callable[...]`` for a class in Python 3.10."""
    return issubclass(type(value), type)


def test_exported_names_do_not_show_the_rooms_they_live_in():
    named = [getattr(anykernel, name) for name in anykernel.__all__]
    assert {value.__module__ for value in named if is_class(value) or inspect.isroutine(value)} == {"anykernel"}


def test_exported_classes_can_be_pickled_by_their_public_names():
    for name in anykernel.__all__:
        exported = getattr(anykernel, name)
        if is_class(exported):
            assert pickle.loads(pickle.dumps(exported)) is exported


def test_every_exported_name_exists_once():
    assert len(set(anykernel.__all__)) == len(anykernel.__all__)
    assert [name for name in anykernel.__all__ if not hasattr(anykernel, name)] == []


def test_every_exported_class_and_function_has_a_docstring_of_its_own():
    undocumented = []
    for name in anykernel.__all__:
        exported = getattr(anykernel, name)
        if not (is_class(exported) or inspect.isroutine(exported)):
            continue  # an alias of a type
        # A class without one shows that of its base.
        docstring = vars(exported).get("__doc__") if is_class(exported) else exported.__doc__
        if not docstring:
            undocumented.append(name)
    assert undocumented == []


def test_everything_public_that_an_exported_class_defines_is_documented():
    undocumented = []
    for name in anykernel.__all__:
        exported = getattr(anykernel, name)
        for attribute, value in vars(exported).items() if is_class(exported) else ():
            is_method = inspect.isroutine(value) or isinstance(value, property)
            if is_method and not attribute.startswith("_") and not inspect.getdoc(getattr(exported, attribute)):
                undocumented.append(f"{name}.{attribute}")
    assert undocumented == []


def test_every_error_is_exported_and_comes_from_one_base():
    errors = set()
    pending = [anykernel.AnyKernelError]
    while pending:
        error = pending.pop()
        pending += error.__subclasses__()
        if error.__module__.split(".")[0] == "anykernel" and error.__name__ not in {
            "KernelProcessError",
            "ResultCarryingError",
        }:
            errors.add(error.__name__)
    assert {name for name in anykernel.__all__ if name.endswith("Error")} == errors
    assert all(issubclass(getattr(anykernel, name), anykernel.AnyKernelError) for name in errors)


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
