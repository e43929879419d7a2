"""HTML as a person would read it: its text, without tags, scripts and styles. No I/O.

How this works. It is one pass over text, tags (whose attributes may quote a ">"), comments, and elements whose content is no
text, as browsers divide it. Nothing is looked at twice: each search goes on where the last one ended, and one that finds
nothing ends it all, as the end of the document inside a tag does in browsers. So it takes time in proportion to the text,
whatever that holds; `html.parser` of some Python versions takes it by the square.
"""

from __future__ import annotations

import re

__all__ = ["html_text"]

# What begins something that is no text: a comment, what browsers take for one, or a tag.
_MARKUP = re.compile(r"<(?:(?P<comment>!--)|(?P<bogus>[!?]|/(?![a-zA-Z]))|(?P<close>/?)(?P<tag>[a-zA-Z][^\s/>]*))")
_TAG_END = re.compile(r">|=\s*([\"'])")
# Elements whose content is no text, or is there for browsers that cannot show them; and what stands for them.
_HIDDEN = {
    "script": "", "style": "", "template": "", "title": "", "noscript": "", "noframes": "", "noembed": "", "iframe": "",
    "object": "", "audio": "", "video": "", "canvas": "", "svg": "<image/svg+xml>",
}  # fmt: skip
_HIDDEN_END = {tag: re.compile(rf"</{tag}(?=[\s/>])", re.IGNORECASE) for tag in _HIDDEN}
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "br", "dd", "details", "dialog", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "legend", "li", "main",
    "nav", "ol", "optgroup", "option", "p", "pre", "section", "summary", "ul",
})  # fmt: skip
_TABLE = frozenset({"caption", "table", "tbody", "tfoot", "thead", "tr"})
_CELLS = frozenset({"td", "th"})
_SPACE = re.compile(r"[ \t\r\n\f]+")
_PICTURE = re.compile(r"(?:^|\s)(alt|src)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.IGNORECASE)
_DATA_URL = re.compile(r"data:(image/[\w.+-]+)")
# Numbers of characters that do not exist, which take long to be read as numbers.
_NO_CHARACTER = re.compile(r"&#\d{8,};?")


def html_text(source: str) -> str:
    """The text of HTML: blocks on lines of their own, the cells of a table's row beside each other."""
    page, position = _Page(), 0
    while (match := _MARKUP.search(source, position)) is not None:
        page.text(source[position : match.start()])
        position = _end_of(source, match)
        if (tag := match["tag"]) is None:
            continue
        tag = tag.lower()
        if tag in _HIDDEN:
            closed = match["close"] or source.endswith("/>", 0, position)
            if not closed:
                end = _HIDDEN_END[tag].search(source, position)
                position = len(source) if end is None else _after_tag(source, end.end())
            if not match["close"] and _HIDDEN[tag]:
                page.text(_HIDDEN[tag])
        elif tag == "img":
            page.text(_picture(source[match.end() : position]))
        else:
            page.tag(tag, closes=bool(match["close"]))
    page.text(source[position:])
    return page.finish()


def _end_of(source: str, match: re.Match[str]) -> int:
    if match["comment"]:
        end = source.find("-->", match.end() - 2)  # "<!-->" is one
        return len(source) if end < 0 else end + 3
    if match["bogus"]:
        return source.find(">", match.end()) + 1 or len(source)
    return _after_tag(source, match.end())


def _after_tag(source: str, position: int) -> int:
    while (match := _TAG_END.search(source, position)) is not None:
        if match[1] is None:
            return match.end()
        position = source.find(match[1], match.end()) + 1
        if not position:
            break
    return len(source)


def _picture(attributes: str) -> str:
    """What stands for a picture: the text that it has for this, or its type."""
    values: dict[str, str] = {name.lower(): a or b or c for name, a, b, c in _PICTURE.findall(attributes)}
    if values.get("alt"):
        return values["alt"]
    data = _DATA_URL.match(values.get("src", ""))
    return f"&lt;{data[1]}>" if data is not None else ""  # like the other's, it will be unescaped


class _Page:
    """The lines so far, and the one that text is added to."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        # The cells so far of the table's row that text is in, and whether it is in a cell.
        self._row: list[str] | None = None
        self._in_cell = False
        self._is_item = False
        # How deep in preformatted text it is, before which line this began, and how many empty lines of it are held back: those
        # at its end do not count.
        self._preformatted = self._preformatted_from = self._blanks = 0

    def text(self, text: str) -> None:
        if "&" in text:
            import html  # noqa: PLC0415 - its table of names takes a millisecond that most never need

            text = html.unescape(_NO_CHARACTER.sub("\ufffd", text))
        if not self._preformatted or self._row is not None:
            self._line.append(text)
            return
        first, *rest = text.split("\n")
        self._line.append(first)
        for other in rest:
            self._end_line()
            self._line.append(other)

    def tag(self, tag: str, *, closes: bool) -> None:
        if tag in _CELLS:
            self._end_cell()
            if not closes:
                self._row, self._in_cell = self._row or [], True
        elif tag in _TABLE:
            self._end_row()
            self._end_line()
            if tag == "tr" and not closes:
                self._row = []
        elif tag in _BLOCKS:
            if self._row is not None:
                self._line.append(" ")  # a cell is one line
                return
            self._end_line()
            self._is_item = self._is_item or (tag == "li" and not closes)
            if tag == "pre":
                self._preformatted = max(0, self._preformatted + (-1 if closes else 1))
                self._preformatted_from, self._blanks = len(self._lines), 0

    def finish(self) -> str:
        self._end_row()
        self._end_line()
        return "\n".join(self._lines).strip("\n")

    def _take_line(self) -> str:
        text = "".join(self._line)
        self._line.clear()
        if not self._preformatted or self._row is not None:
            text = _SPACE.sub(" ", text).strip(" ")
        return text.replace("\xa0", " ").rstrip()

    def _end_line(self) -> None:
        text = self._take_line()
        if text:
            if self._is_item:
                text, self._is_item = f"- {text}", False
            self._lines.extend([""] * self._blanks)
            self._lines.append(text)
            self._blanks = 0
        elif self._preformatted and len(self._lines) > self._preformatted_from:
            self._blanks += 1

    def _end_cell(self) -> None:
        if self._in_cell:
            assert self._row is not None
            self._row.append(self._take_line())
            self._in_cell = False

    def _end_row(self) -> None:
        self._end_cell()
        if self._row is not None and any(self._row):
            self._lines.append(" | ".join(self._row).strip())
        self._row = None
