"""conkernelclient's client, with the verbs of its older and its newer versions."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from queue import Empty
from typing import Any

import anyio

from .clients import AsyncKernelClient, is_ready
from .verbs import Verbs, literal

__all__ = ["ConKernelClient"]

_OUTPUTS = ("stream", "display_data", "execute_result", "error")
# Seconds, where conkernelclient has this default.
_TIMEOUT = 10


class ConKernelClient(AsyncKernelClient):
    """conkernelclient's class: many calls at once, each with its own reply and messages.

    ``default_timeout`` (seconds; None waits as long as the kernel lives) is that of calls that give none. ``on_jmsg(message)``
    gets every message, ``on_dead(message)`` is told of the kernel's end; plain functions or async ones. What waits then gets
    `DeadKernelError`. A call whose time is over has its code stopped.
    """

    default_timeout: float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_jmsg: Callable[[dict[str, Any]], Any] | None = None
        self.on_dead: Callable[[dict[str, Any]], Any] | None = None
        self.jmsgq: Any = None
        """The `JmsgQueues` that are attached."""
        self._called: set[asyncio.Future[Any]] = set()

    def start_channels(self, *args: Any, **kwargs: Any) -> asyncio.Future[ConKernelClient]:
        """Connect; awaited, it gives this client when the kernel is ready."""
        super().start_channels(*args, **kwargs)

        async def ready() -> ConKernelClient:
            await is_ready(self.running, None)
            return self

        return asyncio.ensure_future(ready())

    def on_message(self, message: dict[str, Any]) -> None:
        self._call(self.on_jmsg, message)

    def on_end(self) -> None:
        dead = {"header": {}, "parent_header": {}, "content": {"execution_state": "dead"}, "buffers": []}
        self._call(self.on_dead, {"channel": "iopub", "msg_type": "status", **dead})

    def _call(self, function: Callable[[dict[str, Any]], Any] | None, message: dict[str, Any]) -> None:
        if function is not None and inspect.isawaitable(awaited := function(message)):
            task = asyncio.ensure_future(awaited)
            self._called.add(task)
            task.add_done_callback(self._called.discard)

    # What runs code.

    def execute(
        self,
        code: str,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        allow_stdin: bool | None = None,
        stop_on_error: bool = True,
        msg_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        subshell_id: str | None = None,
        buffers: Sequence[bytes] | None = None,
        *,
        reply: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Send code now, and give its message id; with ``reply``, an awaitable of its reply.

        Raises:
            RuntimeError: the channels do not run.
            DeadKernelError: the kernel is gone.
        """
        content = {
            "code": code,
            "silent": silent,
            "store_history": store_history,
            "user_expressions": dict(user_expressions or {}),
            "allow_stdin": self.allow_stdin if allow_stdin is None else allow_stdin,
            "stop_on_error": stop_on_error,
        }
        sent = self._post("shell", "execute_request", content, msg_id, metadata, buffers, subshell_id)
        return self._recv_reply(sent, self._seconds(timeout)) if reply else sent

    def _post(
        self,
        channel: str,
        msg_type: str,
        content: Mapping[str, Any],
        msg_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes] | None = None,
        subshell_id: str | None = None,
    ) -> str:
        if subshell_id is not None:
            raise NotImplementedError("subshells are not reached by this client: Kernel.subshell() gives one")
        message = self.session.msg(msg_type, dict(content), metadata=metadata and dict(metadata))
        if msg_id is not None:
            message["header"]["msg_id"] = message["msg_id"] = msg_id
        if buffers:
            message["buffers"] = buffers
        self.running.send(channel, message)
        return str(message["header"]["msg_id"])

    def _seconds(self, timeout: float | None) -> float | None:
        return self.default_timeout if timeout is None else timeout

    def run(
        self,
        code: str,
        on_stdin: Callable[[dict[str, Any]], Any] | None = None,
        timeout: float | None = None,
        msg_id: str | None = None,
        allow_stdin: bool | None = None,
        **options: Any,
    ) -> AsyncIterator[dict[str, Any]]:
        """Send code now; iterate over the messages that come of it, its reply and its idle among them.

        ``on_stdin(message)``, plain or async, answers prompts.

        Raises:
            TimeoutError: it was not done within ``timeout`` seconds, and has been stopped.
            DeadKernelError: the kernel is gone.
        """
        allow_stdin = on_stdin is not None if allow_stdin is None else allow_stdin
        sent = str(self.execute(code, allow_stdin=allow_stdin, msg_id=msg_id, **options))
        link, messages = self.running, asyncio.Queue[dict[str, Any]]()
        link.watchers[sent] = messages.put_nowait
        answer = asyncio.ensure_future(link.reply(sent, None))
        return self._messages(sent, messages, answer, on_stdin, self._seconds(timeout))

    async def _messages(
        self,
        msg_id: str,
        messages: asyncio.Queue[dict[str, Any]],
        answer: asyncio.Future[dict[str, Any]],
        on_stdin: Callable[[dict[str, Any]], Any] | None,
        timeout: float | None,
    ) -> AsyncIterator[dict[str, Any]]:
        link, deadline = self.running, None if timeout is None else anyio.current_time() + timeout
        wanted = {"execute_reply", "idle"}
        try:
            while wanted:
                with anyio.fail_after(None if deadline is None else max(0, deadline - anyio.current_time())):
                    message = await messages.get()
                if message["msg_type"] is None:
                    await answer
                elif message["channel"] == "stdin" and on_stdin is not None:
                    value = on_stdin(message)
                    self.input(await value if inspect.isawaitable(value) else value, message)
                else:
                    if message["msg_type"] == "execute_reply":
                        wanted.discard("execute_reply")
                    elif message["msg_type"] == "status":
                        wanted.discard(message["content"].get("execution_state"))
                    yield message
        finally:
            link.watchers.pop(msg_id, None)
            if not answer.done():
                answer.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([answer])

    def reply(
        self, code: str, timeout: float | None = None, msg_id: str | None = None, **options: Any
    ) -> Awaitable[Any]:
        """Send code now; an awaitable of its reply, given when all its output has come."""
        on_stdin = options.pop("on_stdin", None)
        messages = self.run(code, on_stdin, timeout, msg_id, **options)

        async def wait() -> dict[str, Any]:
            return [message async for message in messages if message["msg_type"] == "execute_reply"][-1]

        return wait()

    async def exec_outs(self, code: str, **options: Any) -> list[dict[str, Any]]:
        """The outputs of code, as notebooks have them."""
        from nbformat.v4 import output_from_msg  # noqa: PLC0415 - only this wants it

        messages = self.run(code, **options)
        return [dict(output_from_msg(message)) async for message in messages if message["msg_type"] in _OUTPUTS]

    async def exec_drain(self, code: str, timeout: float = _TIMEOUT, **options: Any) -> tuple[Any, list[Any]]:
        """The reply of code, and its IOPub messages."""
        messages = [message async for message in self.run(code, timeout=timeout, **options)]
        (reply,) = (message for message in messages if message["msg_type"] == "execute_reply")
        return reply, [message for message in messages if message["channel"] == "iopub"]

    async def exec_ok(self, code: str, timeout: float = _TIMEOUT, **options: Any) -> tuple[Any, list[Any]]:
        """As `exec_drain`, of code that must succeed (else AssertionError)."""
        reply, messages = await self.exec_drain(code, timeout, **options)
        if reply["content"]["status"] != "ok":
            raise AssertionError(reply["content"])
        return reply, messages

    async def get_pubs(self, timeout: float = 0.2) -> list[dict[str, Any]]:
        """The IOPub messages that no call took, until none has come for ``timeout`` seconds."""
        messages = []
        try:
            while True:
                messages.append(await self.get_iopub_msg(timeout=timeout))
        except Empty:
            return messages

    # What asks.

    def request(
        self,
        name: str,
        content: Mapping[str, Any] | None = None,
        channel: str = "shell",
        timeout: float | None = None,
        buffers: Sequence[bytes] | None = None,
        msg_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        subshell_id: str | None = None,
    ) -> Awaitable[dict[str, Any]]:
        """Send any request now; an awaitable of its reply."""
        sent = self._post(channel, name, content or {}, msg_id, metadata, buffers, subshell_id)
        return self._recv_reply(sent, self._seconds(timeout), channel)

    def shell(self, name: str, timeout: float | None = None, **content: Any) -> Awaitable[dict[str, Any]]:
        """A request on shell, its content by keywords."""
        return self.request(name, content, "shell", timeout)

    def control(self, name: str, timeout: float | None = None, **content: Any) -> Awaitable[dict[str, Any]]:
        """A request on control, its content by keywords."""
        return self.request(name, content, "control", timeout)

    def shell_request(
        self, msg_type: str, timeout: float | None = _TIMEOUT, **content: Any
    ) -> Awaitable[dict[str, Any]]:
        """As `shell`, with ``msg_id``, ``metadata`` and ``buffers`` of its own."""
        own = {name: content.pop(name, None) for name in ("msg_id", "metadata", "buffers", "subshell_id")}
        return self.request(msg_type, content, timeout=timeout, **own)

    def control_request(self, msg_type: str, timeout: float | None = _TIMEOUT, **content: Any) -> Awaitable[Any]:
        """As `control`."""
        return self.request(msg_type, content, "control", timeout)

    @property
    def cmd(self) -> Verbs:
        """Shell requests as methods: ``await kc.cmd.history(...)``."""
        return Verbs(self.shell_request)

    @property
    def ctl(self) -> Verbs:
        """Control requests as methods: ``await kc.ctl.shutdown(restart=True)``."""
        return Verbs(self.control_request)

    async def complete(self, code: str, cursor_pos: int | None = None, timeout: float = 15) -> tuple[list[str], int]:
        """What may stand at the cursor, and where it begins."""
        at = len(code) if cursor_pos is None else cursor_pos
        content = (await self.shell("complete_request", timeout, code=code, cursor_pos=at))["content"]
        return content.get("matches", []), content.get("cursor_start", at)

    async def inspect(
        self, code: str, cursor_pos: int | None = None, detail_level: int = 0, timeout: float = 15
    ) -> str:
        """What is known of the name at the cursor, as text; empty if nothing."""
        at = len(code) if cursor_pos is None else cursor_pos
        asked = self.shell("inspect_request", timeout, code=code, cursor_pos=at, detail_level=detail_level)
        content = (await asked)["content"]
        return str(content.get("data", {}).get("text/plain", "")) if content.get("found") else ""

    async def check(self, code: str, timeout: float = 15) -> tuple[str, str]:
        """Whether code is complete, and how the next line is indented."""
        content = (await self.shell("is_complete_request", timeout, code=code))["content"]
        return content.get("status", "unknown"), content.get("indent", "")

    async def history(
        self,
        raw: bool = True,
        output: bool = False,
        hist_access_type: str = "range",
        timeout: float = 15,
        **content: Any,
    ) -> dict[str, Any]:
        """The history reply; by default of the whole session."""
        whole = {"session": 0, "start": 0} if hist_access_type == "range" else {}
        options = {"raw": raw, "output": output, "hist_access_type": hist_access_type}
        reply: dict[str, Any] = await self.shell("history_request", timeout, **options, **{**whole, **content})
        return reply

    async def interrupt(self, timeout: float = 5) -> dict[str, Any]:
        """Interrupt what runs by a request; its reply."""
        reply: dict[str, Any] = await self.control_request("interrupt_request", timeout)
        return reply

    def input(self, string: str, request: Mapping[str, Any] | None = None) -> None:
        """Answer a prompt, by default the latest."""
        parent = None if request is None else request["parent_header"]
        self.running.send("stdin", self.session.msg("input_reply", {"value": string}, parent=parent))

    async def input_reply(self, value: str) -> None:
        """As `input`."""
        self.input(value)

    def comm_open(
        self, target_name: str, comm_id: str, data: Any = None, buffers: Any = None, metadata: Any = None
    ) -> str:
        """Send a comm's opening; its message id."""
        content = {"comm_id": comm_id, "target_name": target_name, "data": data or {}}
        return self._post("shell", "comm_open", content, None, metadata, buffers)

    def comm_msg(self, comm_id: str, data: Any = None, buffers: Any = None, metadata: Any = None) -> str:
        """Send a comm's message; its message id."""
        return self._post("shell", "comm_msg", {"comm_id": comm_id, "data": data or {}}, None, metadata, buffers)

    # What calls and evaluates.

    async def eval(
        self,
        func: str,
        *args: Any,
        timeout_: float = 60,
        literal_: bool = True,
        sidecar_: bool = False,
        call_: bool = True,
        **kw: Any,
    ) -> Any:
        """What ``func(*args, **kw)`` gives in the kernel: a literal's value, else its text; an error's traceback.

        ``sidecar_`` makes no difference here: it runs in the main shell, after what was sent before.
        """
        del sidecar_
        name = f"__{secrets.token_hex(4)}"
        code = f"{name} = {func}"
        if call_:
            code += f"(*{args!r}, **{kw!r})\nimport inspect as __i\nif __i.isawaitable({name}): {name} = await {name}"
        wanted = {"value": name, "gone": f"globals().pop({name!r}, None)"}
        try:
            reply = await self.reply(code, timeout_, user_expressions=wanted, store_history=False, stop_on_error=False)
        except TimeoutError:
            return "timeout"
        content = reply["content"]
        if content["status"] != "ok":
            return "\n".join(content.get("traceback") or [f"{content.get('ename')}: {content.get('evalue')}"])
        text = content["user_expressions"].get("value", {}).get("data", {}).get("text/plain")
        if text is None or not literal_:
            return text
        return literal(text)

    async def retr(self, nm: str, sidecar_: bool = False) -> Any:
        """The value of a name."""
        return await self.eval(nm, call_=False, sidecar_=sidecar_)

    async def eval_expr(self, expr: str, code: str = "", timeout: float = 10, **options: Any) -> Any:
        """The value of an expression, where it is a literal's, else its text; ValueError if it raises."""
        content = await self.user_exprs({"_": expr}, code, timeout, **options)
        answer = content["user_expressions"].get("_", content) if content["status"] == "ok" else content
        if answer["status"] != "ok":
            raise ValueError(f"{answer.get('ename')}: {answer.get('evalue')}")
        return literal(answer["data"]["text/plain"])

    async def user_exprs(self, exprs: Mapping[str, str], code: str = "", timeout: float = 10, **options: Any) -> Any:
        """The content of the reply to code with these expressions."""
        reply = await self.reply(code, timeout, user_expressions=exprs, store_history=False, **options)
        return reply["content"]

    def xpush(self, sidecar_: bool = False, **names: Any) -> str:
        """Set names in the kernel, of what has a literal; the message's id."""
        del sidecar_
        return str(self.execute(f"globals().update({names!r})"))

    def xenv(self, **names: Any) -> str:
        """Set environment variables of the kernel; the message's id."""
        texts = {name: str(value) for name, value in names.items()}
        return str(self.execute(f"__import__('os').environ.update({texts!r})"))
