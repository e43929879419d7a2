"""The kernelspecs that are installed here: found where Jupyter looks for them, without importing jupyter_client.

(That takes about 140 ms, and these are a few small files.) A directory ``NAME/kernel.json`` of an earlier place hides those of
the same name in later ones; names are case-insensitive. Where there is no ``python3``, ipykernel, if it is installed, stands in.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from .._protocol import InstalledKernelSpec, KernelSpecError

__all__ = ["find_kernelspec", "list_kernelspecs"]

logger = logging.getLogger("anykernel")

NATIVE = "python3"
"""The name of the Python kernel; ``"python"`` means it, too."""


def list_kernelspecs() -> dict[str, InstalledKernelSpec]:
    """Those that can be read, by name, in alphabetical order."""
    found: dict[str, InstalledKernelSpec] = {}
    hidden = set()
    for name, directory in _places():
        if name not in hidden:
            hidden.add(name)
            try:
                found[name] = _read(name, directory)
            except KernelSpecError as exc:
                logger.warning("%s", exc)
    if NATIVE not in hidden and (native := _native()) is not None:
        found[NATIVE] = native
    return dict(sorted(found.items()))


def find_kernelspec(name: str) -> InstalledKernelSpec:
    """The one of a name.

    Raises:
        KernelSpecError: there is none, or it cannot be read.
    """
    wanted = NATIVE if name == "python" else name.lower()
    for found, directory in _places():
        if found == wanted:
            return _read(found, directory)
    if wanted == NATIVE and (native := _native()) is not None:
        return native
    hint = " (`pip install ipykernel` brings it)" if wanted == NATIVE else ""
    if any(character in name for character in " /\\{"):
        hint = f"; a command is a list, such as {name.split() or [name]}"
    installed = ", ".join(sorted({found for found, _ in _places()})) or "none"
    raise KernelSpecError(f"no kernelspec named {name!r}{hint}; installed are: {installed}")


def _places() -> Iterator[tuple[str, Path]]:
    """The names and directories of all that look like one, those first that hide others."""
    from jupyter_core.paths import jupyter_path  # noqa: PLC0415

    # IPython's directory is where they were once, and still are for some.
    ipython = os.environ.get("IPYTHONDIR") or "~/.ipython"
    for directory in (*jupyter_path("kernels"), str(Path(ipython, "kernels").expanduser())):
        try:
            entries = sorted(Path(directory).iterdir())
        except OSError:
            continue  # most of them do not exist
        for entry in entries:
            if (entry / "kernel.json").is_file():
                yield entry.name.lower(), entry


def _read(name: str, directory: Path) -> InstalledKernelSpec:
    try:
        fields = msgspec.json.decode((directory / "kernel.json").read_bytes(), type=dict[str, Any])
        return _parse(name, directory, fields)
    except (OSError, ValueError) as exc:
        raise KernelSpecError(f"the kernelspec {name!r} cannot be read: {exc}") from exc


def _parse(name: str, directory: Path, fields: dict[str, Any]) -> InstalledKernelSpec:
    mode = fields.get("interrupt_mode", "signal")
    mode = mode.lower() if isinstance(mode, str) else mode
    given = {"interrupt_mode": mode, "name": name, "resource_dir": str(directory)}
    return msgspec.convert({"argv": [], **fields, **given}, InstalledKernelSpec)


def _native() -> InstalledKernelSpec | None:
    """That of ipykernel, where it is installed here without its kernelspec."""
    if find_spec("ipykernel") is None:
        return None
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict  # noqa: PLC0415

    return _parse(NATIVE, Path(RESOURCES), get_kernel_dict())
