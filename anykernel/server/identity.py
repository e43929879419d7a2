"""As whom a server knows us."""

from __future__ import annotations

import os

__all__ = ["Identity"]


class Identity:
    """As whom the server knows us, by the ``session_id`` in a WebSocket's URL.

    It stays the same as far as that helps: with it the server closes what is left of a lost connection, and the kernel drops
    what that held. It must not be how our messages' ids begin: those of the server's own questions do.
    """

    def __init__(self) -> None:
        self.session_id = ""
        self.renew()

    def renew(self) -> None:
        """Be somebody else from the next WebSocket on."""
        self.session_id = f"anykernel-{os.urandom(12).hex()}"
