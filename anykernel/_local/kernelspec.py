"""From what the user calls a kernel to the command that starts it."""

from __future__ import annotations

import os
import re
import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import msgspec

from .._protocol import InstalledKernelSpec, KernelSpecError
from .installed import find_kernelspec

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpec

__all__ = ["LaunchSpec", "resolve_kernel"]

# The provisioner that does what is done here.
LOCAL = "local-provisioner"

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
    metadata: dict[str, Any] = {}
    provisioner: str | None = None
    """The name of the provisioner that is to start it; None where this machine is."""

    def command(self, connection_file: Path | str) -> list[str]:
        """The command with the fields of the kernelspec format filled in; unknown fields stay as they are."""
        fields = {
            "connection_file": str(connection_file),
            "resource_dir": self.resource_dir,
            "prefix": sys.prefix,
        }
        return [_FIELD.sub(lambda m: fields.get(m[1], m[0]), arg) for arg in self.argv]

    def environment(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        """The kernel's environment: ours, then the kernelspec's (``${NAME}`` filled in), then ``extra``."""
        env = {**os.environ, **self.additions(extra)}
        # Kernels that know it (ipykernel) exit when this process is gone.
        env["JPY_PARENT_PID"] = str(os.getpid())
        return env

    def additions(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        """What is added to the environment: the kernelspec's (``${NAME}`` filled in), then ``extra``."""
        given = {name: string.Template(value).safe_substitute(os.environ) for name, value in self.env.items()}
        return {**given, **(extra or {})}


async def resolve_kernel(kernel: str | Sequence[str] | KernelSpec | InstalledKernelSpec) -> LaunchSpec:
    """Find out how to launch what `open_kernel` was given.

    Raises:
        KernelSpecError: there is no such kernelspec, or no ``{connection_file}`` in its command.
    """
    if isinstance(kernel, str):
        # In a thread, so that other tasks go on.
        kernel = await anyio.to_thread.run_sync(find_kernelspec, kernel)
    elif isinstance(kernel, Sequence):
        if not all(isinstance(arg, str) for arg in kernel):
            raise KernelSpecError(f"a kernel's command must be a list of strings, not {kernel!r}")
        return _checked(LaunchSpec(name=Path(kernel[0]).name if kernel else "", argv=list(kernel)))
    elif not hasattr(kernel, "argv"):
        raise KernelSpecError(f"kernel must be a kernelspec's name, a KernelSpec or a command, not {kernel!r}")
    return _from_kernelspec(kernel)


def _from_kernelspec(spec: KernelSpec | InstalledKernelSpec) -> LaunchSpec:
    name = spec.name if isinstance(spec, InstalledKernelSpec) else spec.display_name
    argv = list(spec.argv)
    # As Jupyter does it: a bare "python" means the Python that runs the client, not the first on PATH.
    major, minor = sys.version_info[:2]
    if argv and argv[0] in {"python", f"python{major}", f"python{major}.{minor}"}:
        argv[0] = sys.executable
    metadata: dict[str, Any] = spec.metadata or {}
    encryption = metadata.get("supported_encryption")
    if isinstance(encryption, str):  # such as ipykernel 7.3's
        encryption = [encryption.strip().lower()]
    fields = {
        "name": name,
        "argv": argv,
        "env": dict(spec.env or {}),
        "interrupt_mode": spec.interrupt_mode,
        "supports_curve": isinstance(encryption, list | tuple) and "curve" in encryption,
        "resource_dir": spec.resource_dir,
        "metadata": metadata,
        "provisioner": _provisioner_of(metadata.get("kernel_provisioner")),
    }
    try:
        return _checked(msgspec.convert(fields, LaunchSpec))
    except msgspec.ValidationError as exc:
        raise KernelSpecError(f"the kernelspec {name!r} cannot be used: {exc}") from exc


def _provisioner_of(provisioner: object) -> object:
    """The name of the provisioner that a kernelspec's metadata tell to start its kernel, if it is not this machine's."""
    given = provisioner.get("provisioner_name") if isinstance(provisioner, dict) else None
    # As in jupyter_client, the variable is for kernelspecs that name none.
    given = given or os.environ.get("JUPYTER_DEFAULT_PROVISIONER_NAME") or LOCAL
    return None if given == LOCAL else given


def _checked(spec: LaunchSpec) -> LaunchSpec:
    if any("\0" in arg for arg in spec.argv):
        raise KernelSpecError(f"the command of {spec.name!r} has an argument with a null character: {spec.argv}")
    if not any("{connection_file}" in arg for arg in spec.argv):
        raise KernelSpecError(
            f"the command of {spec.name!r} has no argument with '{{connection_file}}': {spec.argv}; "
            "without it the kernel cannot know where to listen"
        )
    return spec
