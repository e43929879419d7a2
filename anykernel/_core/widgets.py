"""`Kernel.widgets`: a kernel's widgets followed as a front end does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from .._protocol import COMM_TYPES, OUTPUT_TYPES, AnyKernelError, Message, Widget, WidgetModels, is_idle
from .connection import Connection
from .link import Link

__all__ = ["Widgets", "follow_widgets"]


class Widgets(Mapping[str, Widget]):
    """The widgets of a kernel by their model's id, as they are now; from `Kernel.widgets`.

    A model may also be asked for by a reference, as other models' state has them (``"IPY_MODEL_..."``). It stays as it was at
    the end of the block.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._following = True
        self._dropped = 0
        self._begin()

    def _begin(self) -> None:
        self._connection: Connection | None = self._link.connection
        self._models = WidgetModels(self._link.limits.output_limit)
        # `Output` widgets of whose outputs the kernel does not know yet.
        self._unsaid: dict[str, None] = {}

    def _current(self) -> WidgetModels:
        connection = self._link.connection
        if self._following and connection is not None and connection is not self._connection:
            self._dropped += self._models.dropped  # another process has begun
            self._begin()
        return self._models

    @property
    def dropped(self) -> int:
        """How many models were given up because they took too much memory.

        The state of one may take ``output_limit`` bytes, what it captured half of that, all together twice; then those that have
        not changed for the longest go.
        """
        return self._dropped + self._current().dropped

    def state(self) -> dict[str, Any]:
        """The state of all, a copy, as notebooks keep it: ``metadata.widgets["application/vnd.jupyter.widget-state+json"]``.

        A mapping with ``state`` (for each model its ``model_name``, ``model_module``, ``model_module_version``, ``state``, and
        where there are any, base64-encoded ``buffers``), ``version_major`` and ``version_minor``.
        """
        return self._current().saved()

    def __getitem__(self, key: str) -> Widget:
        widget = self._current().get(key)
        if widget is None:
            raise KeyError(key)
        return widget

    def __iter__(self) -> Iterator[str]:
        return iter([widget.model_id for widget in self._current().all()])

    def __len__(self) -> int:
        return len(self._current().all())

    def __repr__(self) -> str:
        return f"<Widgets {', '.join(sorted({widget.model_name for widget in self.values()}))}>"

    # For `follow_widgets`.

    def take(self, message: Message) -> None:
        """Take what the kernel published."""
        models, msg_type = self._current(), message.msg_type
        if msg_type in COMM_TYPES:
            models.take(message)
        elif msg_type == "status":
            if self._unsaid and is_idle(message) and self._is_ours(message):
                self._say()
        else:
            comm_id = self._link.captures.by(message.parent_id)
            if comm_id is not None and models.capture(comm_id, message) and self._is_ours(message):
                self._unsaid[comm_id] = None

    def end(self) -> None:
        """Nothing more is taken."""
        self._current()
        self._following = False

    def _is_ours(self, message: Message) -> bool:
        """Whether it was caused by this client: other front ends fill the kernel's `Output` widgets for theirs."""
        router = None if self._connection is None else self._connection.router
        return router is not None and message.parent_header.get("session") == router.session

    def _say(self) -> None:
        """Tell the kernel what its `Output` widgets show, as front ends do: once a request, since it is all of it each time."""
        unsaid, self._unsaid = self._unsaid, {}
        for comm_id in unsaid:
            widget = self._models.get(comm_id)
            if widget is None or self._connection is None:
                continue
            comms = self._connection.comms
            data = {"method": "update", "state": {"outputs": widget.outputs()}, "buffer_paths": []}
            with suppress(AnyKernelError):  # a kernel that has gone meanwhile need not know
                comms.router.transport.send(comms.message("comm_msg", comm_id, data, None, ()))


@asynccontextmanager
async def follow_widgets(link: Link) -> AsyncIterator[Widgets]:
    """The widgets of a kernel, followed for the length of a block."""
    widgets = Widgets(link)
    async with link.subscribe([*COMM_TYPES, *OUTPUT_TYPES, "clear_output", "status"], widgets.take):
        try:
            yield widgets
        finally:
            widgets.end()
