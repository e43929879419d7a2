"""The protocol's questions, each with its typed answer."""

from __future__ import annotations

from typing import Any, Literal

from .._protocol import (
    ArgumentError,
    CommInfoReply,
    CompleteReply,
    HistoryReply,
    InspectReply,
    IsCompleteReply,
    KernelInfo,
    Message,
    as_integer,
    check_text,
    read_reply,
)

__all__ = ["Questions"]


def _position(code: str, cursor_pos: int | None) -> int:
    position = len(code) if cursor_pos is None else as_integer(cursor_pos)
    if position is None or not 0 <= position <= len(code):
        raise ArgumentError(f"cursor_pos must be a position in the code, 0 to {len(code)}, not {cursor_pos!r}")
    return position


class Questions:
    """Typed requests, by way of `request`."""

    async def request(self, msg_type: str, content: dict[str, Any]) -> Message:
        raise NotImplementedError

    async def complete(self, code: str, cursor_pos: int | None = None) -> CompleteReply:
        """Ask for completions at a position in the code (in code points; None means its end)."""
        content = {"code": check_text("code", code), "cursor_pos": _position(code, cursor_pos)}
        return read_reply((await self.request("complete_request", content)).content, CompleteReply)

    async def inspect(self, code: str, cursor_pos: int | None = None, *, detail_level: int = 0) -> InspectReply:
        """Ask about the object at a position in the code (in code points; None means its end).

        ``detail_level`` 1 asks for more, such as the source.
        """
        content = {
            "code": check_text("code", code),
            "cursor_pos": _position(code, cursor_pos),
            "detail_level": detail_level,
        }
        return read_reply((await self.request("inspect_request", content)).content, InspectReply)

    async def is_complete(self, code: str) -> IsCompleteReply:
        """Ask whether the code is ready to be run, or wants another line."""
        return read_reply(
            (await self.request("is_complete_request", {"code": check_text("code", code)})).content, IsCompleteReply
        )

    async def history(
        self,
        hist_access_type: Literal["tail", "range", "search"] = "tail",
        *,
        output: bool = False,
        raw: bool = True,
        n: int | None = 10,
        session: int = 0,
        start: int = 1,
        stop: int | None = None,
        pattern: str = "*",
        unique: bool = False,
    ) -> HistoryReply:
        """Ask for what was run.

        ``"tail"`` takes ``n``; ``"range"`` takes ``session`` (0 is this one, -1 the one before), ``start`` and
        ``stop`` (line numbers, ``stop`` not included); ``"search"`` takes ``pattern`` (with ``*`` and ``?``),
        ``n`` and ``unique``.
        """
        if hist_access_type not in ("tail", "range", "search"):
            raise ArgumentError(f"history is asked for by 'tail', 'range' or 'search', not {hist_access_type!r}")
        content: dict[str, Any] = {"hist_access_type": hist_access_type, "output": output, "raw": raw}
        if hist_access_type == "range":
            content |= {"session": session, "start": start, "stop": stop}
        else:
            content["n"] = n
        if hist_access_type == "search":
            content |= {"pattern": check_text("pattern", pattern), "unique": unique}
        return read_reply((await self.request("history_request", content)).content, HistoryReply)

    async def comm_info(self, target_name: str | None = None) -> CommInfoReply:
        """Ask which comms are open, for one target or for all."""
        content = {} if target_name is None else {"target_name": target_name}
        return read_reply((await self.request("comm_info_request", content)).content, CommInfoReply)

    async def kernel_info(self) -> KernelInfo:
        """Ask the kernel what it is; `Kernel.info` has the answer it gave at the start."""
        return read_reply((await self.request("kernel_info_request", {})).content, KernelInfo)
