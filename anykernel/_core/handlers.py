"""The user's functions of one execution: ``on_output`` and ``stdin``.

They run in the task that waits for the execution, so what they raise comes out there. The router only puts what they
are to be called with into a queue.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Union

import anyio

from .._protocol import END_OF_INPUT, Losses, Message, Output, Result, StdinError
from .budget import Budget
from .dispatcher import Dispatchers
from .streams import ByteBoundedStream

__all__ = ["Handlers", "OnOutput", "StdinHandler"]

StdinHandler = Callable[[str, bool], Union[str, Awaitable[str]]]
"""Called with the prompt and whether the answer is a password; returns the answer, or an awaitable of it.

It may raise `EOFError` to close the code's stdin.
"""

OnOutput = Callable[[Output], object]
"""Called with each output as it comes; what it returns is awaited if it can be."""


class Handlers:
    """Calls the user's functions with what the kernel sends."""

    def __init__(
        self,
        dispatchers: Dispatchers,
        result: Result,
        stdin: StdinHandler | None,
        on_output: OnOutput | None,
        budget: Budget,
        losses: Losses,
    ) -> None:
        self.inbox: ByteBoundedStream[Output | Message] = ByteBoundedStream(budget, on_drop=losses.note)
        """What they are to be called with: outputs, and input requests."""
        self._dispatchers = dispatchers
        self._result = result
        self._stdin = stdin
        self._on_output = on_output
        self._prompt: Message | None = None  # the latest
        # The latest that was answered, and how, until there is a sign that the code has got it.
        self._answered: tuple[Message, str] | None = None
        self.left = False
        """Whether nobody calls them any more."""
        self._asking: anyio.CancelScope | None = None

    async def run(self) -> None:
        """Call them until `end`, and until all is handled.

        Raises:
            StdinError: the answer is no str.
            Exception: what they raise.
        """
        try:
            async for item in self.inbox:
                if isinstance(item, Message):
                    await self._answer(item)
                else:
                    assert self._on_output is not None
                    waitable = self._on_output(item)
                    if inspect.isawaitable(waitable):
                        await waitable
        finally:
            self.left = True

    def on_input(self, message: Message) -> None:
        """The kernel asks for input."""
        # The code was interrupted in its input() if it asks again: an answer to the first would be taken for this.
        self._void()
        self._answered = None
        self._prompt = message
        self.inbox.pin(message)  # earlier ones are void

    def end(self) -> None:
        """It is decided how the execution ends: no answer is wanted any more."""
        self._void()
        self._answered = None
        self.inbox.end()

    def on_output(self) -> None:
        """The code goes on."""
        self._answered = None

    def answer_again(self) -> None:
        """The latest answer was kept back, or may have been taken by the code of another shell: the kernel gives it to
        whichever reads first.

        One that is not wanted any more does no harm: kernels throw such away when they ask again.
        """
        if self._answered is not None:
            self._dispatchers.router.answer(*self._answered)

    def _void(self) -> None:
        self._prompt = None
        if self._asking is not None:
            self._asking.cancel()

    async def _answer(self, request: Message) -> None:
        if request is not self._prompt:
            return
        assert self._stdin is not None
        prompt, password = request.content.get("prompt", ""), bool(request.content.get("password"))
        with anyio.CancelScope() as self._asking:
            try:
                answer = self._stdin(str(prompt), password)
                if inspect.isawaitable(answer):
                    answer = await answer
            except EOFError:
                answer = END_OF_INPUT
            if not isinstance(answer, str):
                raise StdinError(f"the stdin handler returned {answer!r}; it must return a str", result=self._result)
            if request is self._prompt:
                self._answered = request, answer
                if not self._dispatchers.begging:
                    self._dispatchers.router.answer(request, answer)
        self._asking = None
