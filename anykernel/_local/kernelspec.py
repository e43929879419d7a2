"""From what the user calls a kernel to the command that starts it."""

from __future__ import annotations

import os
import re
import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio.to_thread
import msgspec

from .._protocol import KernelSpecError

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpec

__all__ = ["LaunchSpec", "resolve_kernel"]

_FIELD = re.compile(r"\{([A-Za-z0-9_]+)\}")


class LaunchSpec(msgspec.Struct, frozen=True):
    """How to launch a kernel."""

    name: str
    argv: list[str]
    """The command, with ``{connection_file}`` still in it."""
    env: dict[str, str] = {}
    interrupt_mode: str = "signal"
    supports_curve: bool = False
    resource_dir: str = ""

    def command(self, connection_file: Path) -> list[str]:
        """The command with the fields of the kernelspec format filled in; unknown fields stay as they are."""
        fields = {
            "connection_file": str(connection_file),
            "resource_dir": self.resource_dir,
            "prefix": sys.prefix,
        }
        return [_FIELD.sub(lambda m: fields.get(m[1], m[0]), arg) for arg in self.argv]

    def environment(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        """The kernel's environment: ours, then the kernelspec's (``${NAME}`` filled in), then ``extra``."""
        env = dict(os.environ)
        for name, value in self.env.items():
            env[name] = string.Template(value).safe_substitute(os.environ)
        env.update(extra or {})
        # Kernels that know it (ipykernel) exit when this process is gone.
        env["JPY_PARENT_PID"] = str(os.getpid())
        return env


async def resolve_kernel(kernel: str | Sequence[str] | KernelSpec) -> LaunchSpec:
    """Find out how to launch what `open_kernel` was given.

    Raises:
        KernelSpecError: there is no such kernelspec, or no ``{connection_file}`` in its command.
    """
    if isinstance(kernel, str):
        # In a thread, so that other tasks go on.
        return _from_kernelspec(kernel, await anyio.to_thread.run_sync(_find_kernelspec, kernel))
    if isinstance(kernel, Sequence):
        if not all(isinstance(arg, str) for arg in kernel):
            raise KernelSpecError(f"a kernel's command must be a list of strings, not {kernel!r}")
        return _checked(LaunchSpec(name=Path(kernel[0]).name if kernel else "", argv=list(kernel)))
    if not hasattr(kernel, "argv"):
        raise KernelSpecError(f"kernel must be a kernelspec's name, a KernelSpec or a command, not {kernel!r}")
    return _from_kernelspec(kernel.display_name, kernel)


class _Installed(msgspec.Struct):
    """A ``kernel.json``; the fields that launching takes."""

    argv: list[str]
    display_name: str = ""
    env: dict[str, str] = {}
    interrupt_mode: Literal["signal", "message"] = "signal"
    metadata: dict[str, Any] = {}
    resource_dir: str = ""


def _read_kernelspec(name: str) -> _Installed | None:
    """The kernelspec that jupyter_client would find first, read without importing it; None where it must decide."""
    from jupyter_core.paths import jupyter_path  # noqa: PLC0415

    if not re.fullmatch(r"[a-z0-9._-]+", name):
        return None
    for directory in jupyter_path("kernels"):
        resource_dir = Path(directory, name)
        try:
            found = msgspec.json.decode((resource_dir / "kernel.json").read_bytes(), type=_Installed)
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            return None
        if "kernel_provisioner" in found.metadata:
            return None
        found.resource_dir = str(resource_dir)
        return found
    return None


def _find_kernelspec(name: str) -> KernelSpec | _Installed:
    if (found := _read_kernelspec(name)) is not None:
        return found
    # Importing jupyter_client takes about 140 ms: only where it is needed.
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel  # noqa: PLC0415
    from traitlets import TraitError  # noqa: PLC0415

    manager = KernelSpecManager()
    try:
        return manager.get_kernel_spec(name)
    except NoSuchKernel:
        installed = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        hint = " (`pip install ipykernel` brings it)" if name == "python3" else ""
        if any(character in name for character in " /\\{"):
            hint = f"; a command is a list, such as {name.split() or [name]}"
        raise KernelSpecError(f"no kernelspec named {name!r}{hint}; installed are: {installed}") from None
    except (ValueError, TypeError, TraitError, OSError) as exc:
        raise KernelSpecError(f"the kernelspec {name!r} cannot be read: {exc}") from exc


def _from_kernelspec(name: str, spec: KernelSpec | _Installed) -> LaunchSpec:
    argv = list(spec.argv)
    # As Jupyter does it: a bare "python" means the Python that runs the client, not the first on PATH.
    major, minor = sys.version_info[:2]
    if argv and argv[0] in {"python", f"python{major}", f"python{major}.{minor}"}:
        argv[0] = sys.executable
    metadata: dict[str, Any] = spec.metadata or {}
    encryption = metadata.get("supported_encryption")
    fields = {
        "name": name,
        "argv": argv,
        "env": dict(spec.env or {}),
        "interrupt_mode": spec.interrupt_mode,
        "supports_curve": isinstance(encryption, list | tuple) and "curve" in encryption,
        "resource_dir": spec.resource_dir,
    }
    try:
        return _checked(msgspec.convert(fields, LaunchSpec))
    except msgspec.ValidationError as exc:
        raise KernelSpecError(f"the kernelspec {name!r} cannot be used: {exc}") from exc


def _checked(spec: LaunchSpec) -> LaunchSpec:
    if any("\0" in arg for arg in spec.argv):
        raise KernelSpecError(f"the command of {spec.name!r} has an argument with a null character: {spec.argv}")
    if not any("{connection_file}" in arg for arg in spec.argv):
        raise KernelSpecError(
            f"the command of {spec.name!r} has no argument with '{{connection_file}}': {spec.argv}; "
            "without it the kernel cannot know where to listen"
        )
    return spec
