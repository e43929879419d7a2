"""Evaluating one expression, by way of an execution's user expressions."""

from __future__ import annotations

import ast
from typing import Any

from .._protocol import ArgumentError, UnsupportedError, check_text, error_of
from .driving import drive
from .executor import Executor
from .options import ExecuteOptions

__all__ = ["evaluate"]


def _is_expression(text: str) -> bool:
    """Whether it can be put between parentheses; what cannot is sent as it is, so that the kernel tells of its own lines."""
    try:
        ast.parse(f"(\n{text}\n)", mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


async def evaluate(executor: Executor, expression: str) -> Any:
    """The value of an expression, as `Kernel.evaluate` describes it."""
    if not check_text("expression", expression).strip():
        raise ArgumentError("expression must not be empty")
    info = (await executor.connected()).kernel_info
    is_wrapped = info.language == "python" and _is_expression(expression)
    # repr, because IPython's own text for a value leaves out the rest of long lists.
    asked = f"__import__('builtins').repr((\n{expression}\n))" if is_wrapped else expression
    options = ExecuteOptions(silent=True, store_history=False, user_expressions={"value": asked}, check=True)
    # In its raw mode, xeus-python fails where there is no code.
    code = "pass" if info.implementation == "xeus-python" else ""
    run = await executor.submit(code, options)
    await drive(run)
    result = run.outcome()
    value = result.user_expressions.get("value")
    if not isinstance(value, dict):
        raise UnsupportedError("this kernel evaluates no user expressions")
    if value.get("status") == "error":
        raise error_of(value, result)
    text = str((value.get("data") or {}).get("text/plain", ""))
    if info.language != "python":
        return text
    try:
        if is_wrapped:
            text = ast.literal_eval(text)
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
