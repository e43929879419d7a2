"""Variables of a Python kernel: values there and back, calls of its functions, its environment.

How this works. Each request is an ordinary execution: silent, sent in its turn, stopped and failed like any other.
Its code is always the same few lines; what to do, and with which values, is in the request's buffers, as
`anykernel._protocol.values` encodes them. The code lets the kernel run the text of that module (and of ``served``, the kernel's side) as a module of its own, once
for each process (it is looked for each time, so a restart, ``%reset`` or another client need not be known of), and
leaves no name in the user's namespace. The answer comes as a comm message with buffers, because that is what every
Python kernel can publish; it is parented to the request, so it finds its way like an output.
"""

from __future__ import annotations

import contextlib
import functools
import keyword
import os
import unicodedata
from typing import Any

from .._protocol import (
    MAIL,
    MISSING,
    SEPARATOR,
    AnyKernelError,
    ArgumentError,
    CannotTravelError,
    ConnectionClosedError,
    ExecutionError,
    Message,
    ProtocolError,
    Result,
    UnsupportedError,
    decode,
    describe,
    encode,
    served_source,
)
from .driving import drive
from .executor import Executor
from .options import ExecuteOptions
from .run import Run

__all__ = ["call", "pull", "push", "set_env"]

# By way of `__import__` alone: the user's namespace may shadow the other builtins.
_CODE = """\
__import__('builtins').exec({install!r}, {{'source': {source!r}}})
{run}(__import__('builtins').globals())"""

_INSTALL = """\
import sys, types
if {name!r} not in sys.modules:
    if source is None:
        try:
            from IPython import get_ipython
            source = bytes(get_ipython().kernel.get_parent()["buffers"][-1]).decode()
        except Exception as exc:
            raise type({missing!r}, (Exception,), {{}})(repr(exc)) from None
    module = types.ModuleType({name!r})
    module.__file__ = "<anykernel>"
    for part in source.split({separator!r}):
        exec(compile(part, module.__file__, "exec"), module.__dict__)
    sys.modules[{name!r}] = module
"""

# Kernels that keep the buffers of an execute request from Python: these get them in a comm's message before it.
_WITHOUT_BUFFERS = frozenset({"xeus-python"})


async def push(executor: Executor, variables: dict[str, Any]) -> None:
    for name in variables:
        if not _is_name(name):
            raise ArgumentError(f"{name!r} is no name for a variable")
    await _ask(executor, "push", variables)


async def pull(executor: Executor, names: tuple[str, ...]) -> Any:
    for name in names:
        if not (isinstance(name, str) and all(map(_is_name, name.split(".")))):
            raise ArgumentError(f"{name!r} is neither a name nor names joined by dots")
    values = tuple(await _ask(executor, "pull", list(names)))
    return values[0] if len(names) == 1 else values


async def call(executor: Executor, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not isinstance(function, str):
        raise ArgumentError(f"the function must be told by its name in the kernel, a str, not {function!r}")
    return await _ask(executor, "call", function, args, kwargs)


async def set_env(executor: Executor, variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        try:
            if not isinstance(value, str | None) or not name or "=" in name:
                raise ValueError
            if b"\0" in os.fsencode(name) + os.fsencode(value or ""):
                raise ValueError
        except ValueError:
            raise ArgumentError(f"{name!r} cannot be set to {value!r} in an environment") from None
    await _ask(executor, "set_env", variables)


def _is_name(name: str) -> bool:
    # Python reads names in this normal form; another would never be found.
    return name.isidentifier() and not keyword.iskeyword(name) and unicodedata.normalize("NFKC", name) == name


class _Exchange(Run):
    """An execution whose code publishes an answer; ``mail`` are a comm and the buffers that it is sent before."""

    __slots__ = ("_mail", "answer")

    def __init__(self, *args: Any, mail: tuple[str, list[Any]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answer: Message | None = None
        self._mail = mail

    def send(self, *, allow_stdin: bool) -> None:
        if self._mail is not None:
            comm_id, buffers = self._mail
            self._mail = None
            header, content = self._router.new_header("comm_msg"), {"comm_id": comm_id, "data": {MAIL: self.msg_id}}
            with contextlib.suppress(ConnectionClosedError):  # then the request itself fails with it
                self._router.transport.send(Message("shell", header, content=content, buffers=tuple(buffers)))
        super().send(allow_stdin=allow_stdin)

    def on_iopub(self, message: Message) -> None:
        data = message.content.get("data")
        if message.msg_type == "comm_msg" and isinstance(data, dict) and "anykernel" in data:
            self.answer = message
        else:
            super().on_iopub(message)


async def _ask(executor: Executor, *request: Any) -> Any:
    """Have a request served by ``served`` in the kernel, and return the value it answers."""
    try:
        buffers = encode(request)
    except CannotTravelError as exc:
        _, subject, *path = exc.path  # which of the request's dicts or lists of values, and what in it
        if isinstance(subject, int):
            subject = f"argument {subject} of {request[1]}"
        raise ArgumentError(describe(subject, path, exc)) from exc
    status, value = await _exchange(executor, buffers, awaits=False)
    if status == "async":
        # Only now is it known that there is something to await; the kernel keeps it, under this value.
        status, value = await _exchange(executor, encode(["await", request[1], value]), awaits=True)
    return value


async def _exchange(executor: Executor, buffers: list[Any], *, awaits: bool) -> tuple[str, Any]:
    info = (await executor.connected()).kernel_info
    if info.language != "python":
        raise UnsupportedError(f"variables travel to and from Python kernels only, not {info.language or 'this one'}")
    code = _code("serve_async" if awaits else "serve")
    if info.implementation not in _WITHOUT_BUFFERS:
        answer, result = await _run(executor, code, silent=not awaits, buffers=[*buffers, _served()[2].encode()])
    else:
        answer, _ = await _run(executor, _code("open_mailbox", _served()[2]))
        answer, result = await _run(
            executor, code, silent=not awaits, mail=(answer.content.get("comm_id", ""), buffers)
        )
    failure: AnyKernelError | None = None
    status, value = "", None
    try:
        status, value = decode(answer.buffers)
        if status == "error":
            failure = ExecutionError(*value, result=result)
        elif status == "unsupported":
            failure = UnsupportedError(value)
        elif status not in ("value", "async"):
            raise ValueError(status)
    except ImportError as exc:
        failure = UnsupportedError(f"what the kernel sent cannot be read here: {exc}")
    except Exception as exc:  # noqa: BLE001 - whatever reading nonsense raises
        failure = ProtocolError(f"the kernel sent a malformed answer: {exc!r}", result=result)
    if failure is not None:
        raise failure
    return status, value


async def _run(
    executor: Executor,
    code: str,
    *,
    silent: bool = True,  # but not for what awaits: async-kernel interrupts no silent code that does
    buffers: list[Any] | None = None,
    mail: tuple[str, list[Any]] | None = None,
) -> tuple[Message, Result]:
    """Run code that publishes an answer; the answer, and the result with what the user's code printed."""
    options = ExecuteOptions(silent=silent, store_history=False, check=True)
    exchange = await executor.submit(code, options, kind=functools.partial(_Exchange, mail=mail), buffers=buffers or ())
    assert isinstance(exchange, _Exchange)
    await drive(exchange)
    try:
        result = exchange.outcome()
    except ExecutionError as exc:
        if exc.ename == MISSING:
            raise UnsupportedError(f"variables need IPython, and the buffers of a request: {exc.evalue}") from exc
        raise
    if exchange.answer is None:
        raise ProtocolError("the kernel ran the code of a variables request, and sent no answer", result=result)
    return exchange.answer, result


@functools.cache
def _served() -> tuple[str, str, str]:
    """The kernel's module: its name, which changes with its text, the code that installs it, and its text."""
    import hashlib  # noqa: PLC0415 - 3 ms, at the first use instead of the import of the package

    source = served_source()
    name = f"_anykernel_{hashlib.sha256(source.encode()).hexdigest()[:12]}"
    return name, _INSTALL.format(name=name, missing=MISSING, separator=SEPARATOR), source


def _code(function: str, source: str | None = None) -> str:
    # The same for every request: kernels keep the text of all code that they ran.
    name, install, _ = _served()
    run = f"{'await ' if function == 'serve_async' else ''}__import__('sys').modules[{name!r}].{function}"
    return _CODE.format(install=install, source=source, run=run)
