"""The kernel's side of the variables: does what the client asks for, with values as ``values`` encodes them.

**This file is not imported here: its text is sent to the kernel**, behind that of ``values``, and runs there in the same
namespace. It keeps to what any Python from 3.8 on understands.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # in the kernel, they are there already
    from .values import MAIL, MISSING, CannotTravelError, decode, describe, encode


def _evaluate(expression: str, namespace: Any) -> Any:
    return eval(compile(expression, __file__, "eval"), namespace)  # noqa: S307 - the client's, like any code it sends


def _set_env(variables: Any) -> None:
    import os  # noqa: PLC0415

    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


_OPERATIONS: dict[str, Any] = {
    "push": lambda namespace, variables: namespace.update(variables),
    "pull": lambda namespace, names: [_evaluate(name, namespace) for name in names],
    "call": lambda namespace, function, args, kwargs: _evaluate(function, namespace)(*args, **kwargs),
    "await": lambda _, function, key: _awaitables.pop(key),  # noqa: ARG005
    "set_env": lambda _, variables: _set_env(variables),
}


def serve(namespace: Any) -> None:
    """Do what the request that is being executed asks for, in the user's namespace, and publish the answer."""
    with contextlib.suppress(StopIteration):
        _serve(namespace, awaits=False).send(None)  # it awaits nothing, and needs no event loop


async def serve_async(namespace: Any) -> None:
    """`serve` for what a call left to await. Code that awaits is not interrupted where it does not."""
    await _serve(namespace, awaits=True)


async def _serve(namespace: Any, *, awaits: bool) -> None:
    from IPython import get_ipython  # noqa: PLC0415

    kernel = get_ipython().kernel
    try:
        name, *arguments = _receive(kernel)
        value = _OPERATIONS[name](namespace, *arguments)
        if awaits:
            value = await value
        if name == "call" and inspect.isawaitable(value):
            answer = encode(["async", _keep(kernel, value)])
        else:
            answer = _answer(value, arguments[0] if name == "pull" else f"what {arguments[0]} returned")
    except Exception as exc:  # noqa: BLE001 - whatever the user's code raises
        answer = encode(["error", (type(exc).__name__, _text(exc), _traceback(exc))])
    _publish(kernel, answer)


# What calls returned to be awaited, by their requests, until another request awaits it. Some may never come.
_awaitables: dict[str, Any] = {}
_MOST_AWAITABLES = 1000


def _keep(kernel: Any, value: Any) -> str:
    key: str = kernel.get_parent()["header"]["msg_id"]
    _awaitables[key] = value
    for old in list(_awaitables)[:-_MOST_AWAITABLES]:
        dropped = _awaitables.pop(old, None)
        if inspect.iscoroutine(dropped):
            dropped.close()  # or Python warns that it was never awaited
    return key


# Where the kernel keeps a request's buffers from Python: a comm, and the buffers that it was sent, by request.
_comms: list[Any] = []
_mail: dict[str, Any] = {}


def _take_mail(message: Any) -> None:
    _mail[message["content"]["data"][MAIL]] = message["buffers"]


def _comm() -> Any:
    if not _comms:
        import comm  # noqa: PLC0415

        _comms.append(comm.create_comm(target_name="anykernel"))
        _comms[0].on_msg(_take_mail)
    return _comms[0]


def open_mailbox(namespace: Any) -> None:  # noqa: ARG001
    """Tell the client the comm that takes buffers, by a message of it."""
    if type(_comm()).__name__ == "DummyComm":  # which sends nothing: xeus-python's raw mode has no other
        raise type(MISSING, (Exception,), {})("its comms send nothing, as it runs without IPython")
    _comm().send(data={"anykernel": "mailbox"})


def _receive(kernel: Any) -> Any:
    parent = kernel.get_parent()
    if "buffers" in parent:
        buffers, parent["buffers"] = parent["buffers"], []  # the kernel would keep them until the next request
    else:
        buffers = _mail.pop(parent["header"]["msg_id"])
    return decode(buffers)


def _answer(value: Any, subject: Any) -> list[Any]:
    try:
        return encode(["value", value], copy=True)
    except CannotTravelError as exc:
        path = exc.path[1:]  # inside the answer
        if not isinstance(subject, str):
            subject = subject[path.pop(0)]
        return encode(["unsupported", describe(subject, path, exc)])


def _text(exc: BaseException) -> str:
    try:
        return str(exc)[:]  # a plain str
    except Exception:  # noqa: BLE001 - the user's code
        return "(its text cannot be told)"


def _traceback(exc: BaseException) -> list[str]:
    import traceback  # noqa: PLC0415

    frames = exc.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next  # this module's own
    return "".join(traceback.format_exception(type(exc), exc, frames)).splitlines()


def _publish(kernel: Any, buffers: Any) -> None:
    # A comm's message, because all kernels can send those with buffers; front ends ignore unknown comms.
    content = {"comm_id": "anykernel", "data": {"anykernel": "answer"}}
    if hasattr(kernel, "send_response"):  # ipykernel
        kernel.send_response(kernel.iopub_socket, "comm_msg", content, buffers=buffers)
    elif hasattr(getattr(kernel, "parent", None), "iopub_send"):  # async-kernel, whose comms name no parent
        kernel.parent.iopub_send("comm_msg", content, buffers=buffers)
    else:
        _comm().send(data=content["data"], buffers=buffers)
