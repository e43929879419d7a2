"""Writes modules of anykernel/sync: the blocking twins, with the signatures of the async originals.

``python -m tests.sync.generate`` from the top of the repository.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import anykernel
from anykernel._core.shell import Shell
from anykernel.pool import Mapped, Pool
from anykernel.server import Server

TARGET = Path(anykernel.__file__).parent / "sync"

HEAD = """\"\"\"Blocking twins of {what}: thin, and generated, so that none drifts from its original.

Written by ``python -m tests.sync.generate``; a test says when that is to be done again. What a method does, takes and raises
is told by the original's docstring, which it gets when this is imported.
\"\"\"

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from anyio.streams.memory import MemoryObjectStreamStatistics

from .. import (
    CommInfoReply,
    CompleteReply,
    ConnectionInfo,
    DebugReply,
    HistoryReply,
    InspectReply,
    IsCompleteReply,
    KernelEvent,
    KernelInfo,
    Message,
    OnOutput,
    Output,
    Result,
    StdinHandler,
    UsageReply,
    Widgets,
)
{imports}from .twins import Block, Iteration, Twin, as_it_is

if TYPE_CHECKING:  # these need an extra
    from ..server import RunningKernel, ServerKernelSpec

__all__ = {names}
"""

FILES = {
    "streams": (["Stream", "Comm", "Execution"], "streams, comms and executions", ""),
    "shells": (["Shell", "Subshell"], "shells", "from .streams import Execution\n"),
    "kernels": (
        ["Kernel"],
        "kernels",
        "from .shells import Shell, Subshell\nfrom .streams import Comm, CommStream, Stream\n",
    ),
    "servers": (["Server"], "servers", "from .kernels import Kernel\n"),
    "pools": (["Mapped", "Pool"], "pools", "from ..pool import PoolStatistics\nfrom .kernels import Kernel\n"),
}

# Name of the twin: its original, its base, and what its methods give that has a twin itself.
CLASSES = {
    "Stream": (anykernel.ByteBoundedStream, "Twin"),
    "Comm": (anykernel.Comm, "Twin"),
    "Execution": (anykernel.Execution, "Twin"),
    "Shell": (Shell, "Twin"),
    "Subshell": (anykernel.Subshell, "Shell"),
    "Kernel": (anykernel.Kernel, "Shell"),
    "Mapped": (Mapped, "Twin"),
    "Pool": (Pool, "Twin"),
    "Server": (Server, "Twin"),
}
ITERATED = {"Stream": "Any", "Comm": "Message", "Execution": "Output", "Mapped": "Any"}
# What blocks give, and how the twin of it is made.
GIVEN = {
    "events": "Stream", "messages": "Stream", "debug_events": "Stream", "comms": "CommStream", "open_comm": "Comm",
    "subshell": "Subshell", "stream": "Execution", "kernel": "Kernel", "map": "Mapped", "open_kernel": "Kernel", "connect_kernel": "Kernel",
}  # fmt: skip
RENAMED = {"aclose": "close"}
LEFT_OUT = {"send_nowait", "end", "close", "put", "fail", "no_more", "room", "extra", "extra_attributes"}


def members(original, base):
    found = {}
    inherited = {"Twin": object, "Shell": Shell}[base]
    for owner in reversed(original.__mro__):
        if (
            owner is object
            or (inherited is Shell and owner in Shell.__mro__)
            or not owner.__module__.startswith("anykernel")
        ):
            continue
        found |= {
            name: value
            for name, value in vars(owner).items()
            if not name.startswith("_") or name == "_repr_mimebundle_"
        }
    return found.items()


def annotation(value):
    text = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    text = re.sub(r"\bMapping\[str, Any\] \| None", "Mapping[str, Any] | None", text)
    text = {"T": "Any", "State": 'Literal["queued", "sent", "running", "settled"]'}.get(text, text)
    return text.replace("AsyncIterableABC", "AsyncIterable")


def parameters(function):
    texts, names, seen_star = [], [], False
    for p in list(inspect.signature(function).parameters.values())[1:]:
        if p.kind is p.KEYWORD_ONLY and not seen_star:
            texts.append("*")
            seen_star = True
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        seen_star = seen_star or bool(star == "*")
        text = f"{star}{p.name}: {annotation(p.annotation)}"
        if p.default is not p.empty:
            text += f" = {p.default!r}"
        texts.append(text)
        if p.kind is p.POSITIONAL_ONLY:
            following = [q for q in inspect.signature(function).parameters.values() if q.kind is not p.POSITIONAL_ONLY]
            last = [q for q in inspect.signature(function).parameters.values() if q.kind is p.POSITIONAL_ONLY][-1]
            if p.name == last.name:
                texts.append("/")
            del following
        names.append(f"{star}{p.name}" if star else (p.name if p.kind is not p.KEYWORD_ONLY else f"{p.name}={p.name}"))
    first = next(iter(inspect.signature(function).parameters.values()))
    if first.kind is first.POSITIONAL_ONLY and "/" not in texts:
        texts.insert(0, "/")
    return ", ".join(["self", *texts]), ", ".join(names)


def method(name, value):
    function = inspect.unwrap(value)
    heading, call = parameters(value)
    shown = RENAMED.get(name, name)
    returns = annotation(inspect.signature(value).return_annotation)
    if inspect.iscoroutinefunction(function):
        for own in ("stdin", "on_output") if name == "execute" else ():
            call = call.replace(f"{own}={own}", f"{own}=own({own})")
        made = f"self._portal.call(lambda {'own' if 'own(' in call else '_'}: self._inner.{name}({call}))"
        if returns == "Execution":
            return f"    def {shown}({heading}) -> Execution:\n        return Execution({made}, self._portal)\n"
        if returns == "None":
            return f"    def {shown}({heading}) -> None:\n        {made}\n"
        return f"    def {shown}({heading}) -> {returns}:\n        result: {returns} = {made}\n        return result\n"
    if name == "widgets":  # which wait for nothing
        return f"    def widgets({heading}) -> Block[Widgets]:\n        return Block(lambda: self._portal, lambda: self._inner.widgets(), as_it_is)\n"
    if name in GIVEN:
        given = GIVEN[name]
        return f"    def {shown}({heading}) -> Block[{given}]:\n        return Block(lambda: self._portal, lambda: self._inner.{name}({call}), {given})\n"
    if name == "watch":
        return f"    def watch({heading}) -> Iteration[list[Output]]:\n        return Iteration(self._inner.watch, self._portal, as_it_is)\n"
    return f"    def {shown}({heading}) -> {returns}:\n        result: {returns} = self._inner.{name}({call})\n        return result\n"


def generate() -> dict[str, str]:
    return {name: generate_one(*entry) for name, entry in FILES.items()}


def generate_one(twins, what, imports) -> str:
    parts = [
        HEAD.format(
            what=what, imports=imports, names=json.dumps(sorted([*twins, *(["CommStream"] if "Comm" in twins else [])]))
        )
    ]
    for twin in twins:
        original, base = CLASSES[twin]
        parts.append(f"\n\nclass {twin}({base}):\n")
        body = []
        for name, value in members(original, base):
            if name in LEFT_OUT and not (name == "close" and twin == "Comm"):
                continue
            if isinstance(value, property):
                returns = annotation(inspect.signature(value.fget).return_annotation)
                body.append(
                    f"    @property\n    def {name}(self) -> {returns}:\n        value: {returns} = self._inner.{name}\n        return value\n"
                )
                if value.fset is not None:
                    body.append(
                        f"    @{name}.setter\n    def {name}(self, value: {returns}) -> None:\n        self._inner.{name} = value\n"
                    )
            elif inspect.isroutine(value):
                body.append(method(name, value))
        if twin in ITERATED:
            body.append(
                f"    def __iter__(self) -> Iterator[{ITERATED[twin]}]:\n        return Iteration(self._inner, self._portal, as_it_is)\n"
            )
        if twin in ("Stream", "Mapped", "Comm"):
            body.append(
                f"    def __next__(self) -> {ITERATED[twin]}:\n"
                f"        item: {ITERATED[twin]} = next(Iteration(self._inner, self._portal, as_it_is))\n        return item\n"
            )
        if twin == "Stream":
            body.append(
                "    @property\n    def dropped(self) -> int:\n        value: int = self._inner.dropped\n        return value\n"
            )
        if twin == "Subshell":
            body.append(
                "    @property\n    def id(self) -> str:\n        value: str = self._inner.id\n        return value\n"
            )
        parts.append("\n".join(body))
        if twin == "Comm":
            parts.append(
                "\n\nclass CommStream(Stream):\n"
                "    def receive(self) -> Comm:\n        return Comm(self._portal.call(lambda _: self._inner.receive()), self._portal)\n\n"
                "    def __iter__(self) -> Iterator[Comm]:\n        return Iteration(self._inner, self._portal, Comm)\n\n"
                "    def __next__(self) -> Comm:\n        return next(Iteration(self._inner, self._portal, Comm))\n"
            )
    return "".join(parts)


def formatted(source: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(TARGET / "x.py"), "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    for name, source in generate().items():
        (TARGET / f"{name}.py").write_text(formatted(source))
