"""HTML as a person would read it, without tags, scripts and styles. No I/O.

Takes time in proportion to the text, whatever it holds: each search goes on where the last one ended, and one that finds
nothing ends it all.
"""

from __future__ import annotations

import html
import re

__all__ = ["html_text"]

# What begins something that is no text: a comment or declaration, a tag's end, a tag.
_MARKUP = re.compile(r"<(?:(?P<comment>!--)|(?P<declaration>[!?])|(?P<close>/)?(?P<tag>[a-zA-Z][a-zA-Z0-9:-]*))")
_HIDDEN = {
    name: re.compile(rf"</{name}\s*>", re.IGNORECASE)
    for name in ("script", "style", "head", "template", "noscript", "title")
}
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "br",
        "caption",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "tr",
        "ul",
    ]
)
# Stands behind a table's cell until its row is known.
_CELL = "\x1f"
_SPACE = re.compile(r"[ \t\r\n\f]+")
_ALT = re.compile(r"""\balt\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)


def html_text(source: str) -> str:
    """The text of HTML: blocks on lines of their own, cells of a table's row beside each other."""
    lines: list[str] = []
    line: list[str] = []
    preformatted = 0

    def end_line() -> None:
        text = "".join(line)
        line.clear()
        text = text.rstrip() if preformatted else _SPACE.sub(" ", text).strip()
        text = text.removesuffix(_CELL).rstrip().replace(f" {_CELL} ", " | ")
        if text or (lines and lines[-1] and preformatted):
            lines.append(text)

    def add(text: str) -> None:
        text = html.unescape(text)
        if not preformatted:
            line.append(text)
            return
        first, *rest = text.split("\n")
        line.append(first)
        for other in rest:
            end_line()
            line.append(other)

    position = 0
    while position < len(source):
        match = _MARKUP.search(source, position)
        if match is None:
            add(source[position:])
            break
        add(source[position : match.start()])
        if match["comment"]:
            end = source.find("-->", match.end())
            position = len(source) if end < 0 else end + 3
            continue
        end = source.find(">", match.end())
        position = len(source) if end < 0 else end + 1
        if match["declaration"]:
            continue
        tag = match["tag"].lower()
        if tag in _HIDDEN and not match["close"]:
            closing = _HIDDEN[tag].search(source, position)
            position = len(source) if closing is None else closing.end()
        elif tag == "pre":
            end_line()
            preformatted = max(0, preformatted + (-1 if match["close"] else 1))
        elif tag in _BLOCKS:
            end_line()
            if tag == "li" and not match["close"]:
                line.append("- ")
        elif tag in ("td", "th") and match["close"]:
            line.append(f" {_CELL} ")
        elif tag == "img" and (alt := _ALT.search(source, match.end(), position)) is not None:
            add(alt[1] or alt[2] or "")
    end_line()
    return "\n".join(lines).rstrip()
