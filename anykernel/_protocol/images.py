"""Images among outputs, as the bytes of a file. No I/O."""

from __future__ import annotations

import base64
import binascii
from typing import Any

__all__ = ["Image", "image_of"]

_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_SVG = "image/svg+xml"


class Image(bytes):
    """The bytes of an image, as a file of its type has them."""

    mime: str
    """Its type, such as ``"image/png"``."""

    def __new__(cls, data: bytes, mime: str = "") -> Image:  # noqa: PYI034 - Self is new in Python 3.11
        image = super().__new__(cls, data)
        image.mime = mime
        return image


def image_of(data: dict[str, Any]) -> Image | None:
    """The image in a MIME bundle; None where there is none."""
    for mime in _IMAGES:
        if isinstance(encoded := data.get(mime), str):
            try:
                return Image(base64.b64decode(encoded), mime)
            except (binascii.Error, ValueError):
                continue
    svg = data.get(_SVG)
    return Image(svg.encode("utf-8", "replace"), _SVG) if isinstance(svg, str) else None
