"""What a client of jupyter_client's kind stands on: a connected kernel, kept open by a task of its own on asyncio.

How this works. Clients call verbs that send at once and do not wait, so what they send is queued; one task connects, sends in
order, and delivers IOPub's messages; each request has a task that waits for its reply. A reply belongs to who waits for it;
where nobody does, it goes into the channel's inbox, as everything goes there that came on IOPub.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
from jupyter_client.session import Session

from .. import (
    AnyKernelError,
    ConnectionClosedError,
    Execution,
    Kernel,
    KernelDiedError,
    ProtocolError,
    Result,
    connect_kernel,
)
from .channels import DeadKernelError, Inbox, as_dict

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["Link"]

# As the kernel's own queue decides what is aborted after an error, all that is sent lies there.
_IN_FLIGHT = 2**31
# Seconds between two looks at a process that a manager has started.
_LOOK_INTERVAL = 0.2
# These have no reply.
_UNANSWERED = {"comm_open", "comm_msg", "comm_close"}


class Reply:
    """A reply that is waited for, or may be."""

    def __init__(self, future: asyncio.Future[dict[str, Any]], channel: str) -> None:
        self.future = future
        self.channel = channel
        self.claimed = False
        self.execution: Execution | None = None


class Link:
    """A client's connection to its kernel. Made in a running loop, where it belongs; closed by `stop` or `close`."""

    def __init__(
        self,
        connection: Mapping[str, Any],
        session: Session,
        *,
        gone: Callable[[], Awaitable[bool]] | None,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_dead: Callable[[], None] | None = None,
    ) -> None:
        self.ending: Exception | None = None
        """Why nothing comes any more."""
        self.inboxes = {name: Inbox() for name in ("shell", "control", "iopub", "stdin")}
        self.replies: dict[str, Reply] = {}
        self.watchers: dict[str, Callable[[dict[str, Any]], None]] = {}
        """Who gets a request's messages besides the inboxes, by the request's id."""
        self._connection = connection
        self._session = session
        self._gone = gone
        self._on_message = on_message
        self._on_dead = on_dead
        self._outbox: deque[tuple[str, dict[str, Any]]] = deque()
        self._sent = asyncio.Event()
        # Prompts that are not answered, by the request whose code asks.
        self._asked: dict[str, asyncio.Future[str]] = {}
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Kernel] = self._loop.create_future()
        self.ready.add_done_callback(_retrieved)
        self._task = self._loop.create_task(self._run())

    # For the client.

    def send(self, channel: str, message: dict[str, Any]) -> None:
        """Queue a message of jupyter_client's form; it is sent when the kernel is ready.

        Raises:
            DeadKernelError: the kernel is gone.
        """
        if self.ending is not None:
            raise DeadKernelError(str(self.ending)) from self.ending
        if channel != "stdin" and message["header"]["msg_type"] not in _UNANSWERED:
            future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
            future.add_done_callback(_retrieved)
            self.replies[message["header"]["msg_id"]] = Reply(future, channel)
        self._outbox.append((channel, message))
        self._sent.set()

    def reply(self, msg_id: str, timeout: float | None, channel: str = "shell") -> Awaitable[dict[str, Any]]:
        """What this request is answered with; claimed now. Code that is not done in time, or not waited for, is stopped."""
        reply = self.replies.get(msg_id)
        if reply is None:
            return self._late(msg_id, channel)
        reply.claimed = True
        return self._answer(reply, timeout)

    async def _answer(self, reply: Reply, timeout: float | None) -> dict[str, Any]:
        try:
            with anyio.move_on_after(timeout):
                return await asyncio.shield(reply.future)
        except asyncio.CancelledError:
            if reply.execution is not None:
                await reply.execution.cancel()
            raise
        if reply.execution is not None:
            await reply.execution.cancel()
        raise TimeoutError(f"no reply within {timeout:g} s")

    async def _late(self, msg_id: str, channel: str) -> dict[str, Any]:
        inbox = self.inboxes[channel]
        found = inbox.take(msg_id)
        if found is None:
            if self.ending is not None:
                raise DeadKernelError(str(self.ending)) from self.ending
            raise TimeoutError(f"the reply to {msg_id} is not expected, or was read by another call")
        return found

    def end(self, error: Exception) -> None:
        """Fail all that is waited for."""
        if self.ending is not None:
            return
        self.ending = error
        for reply in list(self.replies.values()):
            if not reply.future.done():
                reply.future.set_exception(error)
        self.replies.clear()
        if not self.ready.done():
            self.ready.set_exception(error)
        for watcher in list(self.watchers.values()):
            watcher({"msg_type": None})
        for inbox in self.inboxes.values():
            inbox.fail(error)
        if self._on_dead is not None and isinstance(error, DeadKernelError):
            self._on_dead()

    def stop(self) -> None:
        """Close it; sockets are gone when the loop has run its task to the end."""
        self.end(RuntimeError("the client's channels were stopped"))
        self._task.cancel()

    async def close(self) -> None:
        """Close it, and wait for that."""
        self.stop()
        await asyncio.wait([self._task])

    # The task.

    async def _run(self) -> None:
        try:
            while not self._served:
                try:
                    await self._serve()
                except (AnyKernelError, BaseExceptionGroup) as exc:
                    error: BaseException = exc
                    while isinstance(error, BaseExceptionGroup):
                        error = error.exceptions[0]
                    # What closed a connection before the kernel was ready may have been the process before a restart.
                    if self._served or self._gone is None or await self._gone():
                        self.end(DeadKernelError(str(error)))
                    else:
                        await anyio.sleep(_LOOK_INTERVAL)
        finally:
            self.end(DeadKernelError("the kernel is gone"))

    @property
    def _served(self) -> bool:
        return self.ending is not None or self.ready.done()

    async def _serve(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            if self._gone is not None:
                tasks.start_soon(self._watch, self._gone, tasks)
            kernel = await stack.enter_async_context(
                connect_kernel(self._connection, startup_timeout=math.inf, max_in_flight=_IN_FLIGHT)
            )
            messages = await stack.enter_async_context(kernel.messages())
            inner = await stack.enter_async_context(anyio.create_task_group())
            inner.start_soon(self._send_all, kernel, inner)
            self.ready.set_result(kernel)
            async for message in messages:
                self._deliver(as_dict(message), message.weight)

    async def _watch(self, gone: Callable[[], Awaitable[bool]], tasks: anyio.abc.TaskGroup) -> None:
        while not await gone():  # noqa: ASYNC110 - there is no event of it
            await anyio.sleep(_LOOK_INTERVAL)
        self.end(DeadKernelError("the kernel died"))
        tasks.cancel_scope.cancel()

    def _deliver(self, message: dict[str, Any], weight: int, reply: Reply | None = None) -> None:
        parent = message["parent_header"].get("msg_id")
        if (watcher := self.watchers.get(parent)) is not None:
            watcher(message)
        elif reply is None or not reply.claimed:
            self.inboxes[message["channel"]].put(message, weight)
        if reply is not None:
            self.replies.pop(parent, None)
            if not reply.future.done():
                reply.future.set_result(message)
        if self._on_message is not None:
            self._on_message(message)

    async def _send_all(self, kernel: Kernel, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            while self._outbox:
                channel, message = self._outbox.popleft()
                if channel == "stdin":
                    self._take_answer(message)
                elif message["header"]["msg_type"] == "execute_request":
                    await self._execute(kernel, message, tasks)
                else:
                    tasks.start_soon(self._request, kernel, channel, message)
            self._sent.clear()
            await self._sent.wait()

    async def _execute(self, kernel: Kernel, message: dict[str, Any], tasks: anyio.abc.TaskGroup) -> None:
        header, content = message["header"], message["content"]
        reply = self.replies[header["msg_id"]]

        async def ask(prompt: str, password: bool) -> str:
            answer: asyncio.Future[str] = self._loop.create_future()
            self._asked[header["msg_id"]] = answer
            asked = self._session.msg("input_request", {"prompt": prompt, "password": password}, parent=header)
            self._deliver({**asked, "buffers": [], "channel": "stdin"}, len(prompt))
            return await answer

        try:
            reply.execution = await kernel.submit(
                content["code"],
                silent=content["silent"],
                store_history=content["store_history"],
                user_expressions=content["user_expressions"],
                stop_on_error=content["stop_on_error"],
                stdin=ask if content["allow_stdin"] else None,
                msg_id=header["msg_id"],
                metadata=message["metadata"],
            )
        except AnyKernelError as exc:
            self._refuse(reply, header, exc)
        else:
            tasks.start_soon(self._settle, reply, header)

    async def _settle(self, reply: Reply, header: dict[str, Any]) -> None:
        assert reply.execution is not None
        try:
            result = await reply.execution.wait()
        except AnyKernelError as exc:
            self._refuse(reply, header, exc)
        else:
            answer = self._session.msg("execute_reply", _content(result), parent=header, metadata=result.metadata)
            self._deliver({**answer, "buffers": [], "channel": "shell"}, 0, reply)
        finally:
            self._asked.pop(header["msg_id"], None)

    async def _request(self, kernel: Kernel, channel: str, message: dict[str, Any]) -> None:
        header = message["header"]
        reply = self.replies.get(header["msg_id"])
        try:
            answer = await kernel.request(
                header["msg_type"],
                message["content"],
                channel="control" if channel == "control" else "shell",
                metadata=message["metadata"],
                buffers=message.get("buffers"),
                msg_id=header["msg_id"],
            )
        except AnyKernelError as exc:
            if reply is not None:
                self._refuse(reply, header, exc)
            elif not isinstance(exc, ProtocolError | ConnectionClosedError | KernelDiedError):
                raise
        else:
            if reply is not None:
                self._deliver(as_dict(answer), answer.weight, reply)

    def _refuse(self, reply: Reply, header: dict[str, Any], error: AnyKernelError) -> None:
        self.replies.pop(header["msg_id"], None)
        if not reply.future.done():
            gone = isinstance(error, KernelDiedError | ConnectionClosedError)
            reply.future.set_exception(DeadKernelError(str(error)) if gone else error)

    def _take_answer(self, message: dict[str, Any]) -> None:
        asked = message.get("parent_header", {}).get("msg_id")
        if asked not in self._asked:
            asked = next(reversed(self._asked), None)
        answer = None if asked is None else self._asked.pop(asked)
        if answer is not None and not answer.done():
            answer.set_result(message["content"]["value"])


def _content(result: Result) -> dict[str, Any]:
    content: dict[str, Any] = {
        "status": result.status,
        "execution_count": result.execution_count,
        "user_expressions": result.user_expressions,
        "payload": result.payload,
    }
    if result.status == "error":
        error = result.error
        content["ename"] = "" if error is None else error.ename
        content["evalue"] = "" if error is None else error.evalue
        content["traceback"] = [] if error is None else error.traceback
    return content


def _retrieved(future: asyncio.Future[Any]) -> None:
    """What nobody waited for is no error of the loop's."""
    if not future.cancelled():
        future.exception()
