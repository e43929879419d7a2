"""A server of the Model Context Protocol: kernels as tools for language models.

It may import public names alone. A newcomer begins with ``tools``, then ``kernels`` (which are kept) and ``showing``.
"""

from .serving import serve_http, serve_stdio

__all__ = ["serve_http", "serve_stdio"]
