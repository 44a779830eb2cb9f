"""SVG as text: elements in order, numbers and names written so that any reader takes them, the same bytes every time."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape


class Drawing:
    """Elements of an SVG, in order."""

    def __init__(self) -> None:
        self._elements: list[str] = []

    def add(self, element: str) -> None:
        """Adds an element that is SVG already."""
        self._elements.append(element)

    def text(self, x: float, y: float, text: str, classes: str = "", *, full: str = "") -> None:
        """Adds a line of text by its base line; `full` is shown when it is pointed at."""
        kind = f' class="{classes}"' if classes else ""
        hint = f"<title>{clean(full)}</title>" if full else ""
        self.add(f'<text x="{number(x)}" y="{number(y)}"{kind}>{clean(text)}{hint}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, classes: str) -> None:
        """Adds a straight line."""
        ends = " ".join(f'{n}="{number(v)}"' for n, v in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)))
        self.add(f'<line {ends} class="{classes}"/>')

    def rect(self, x: float, y: float, width: float, height: float, classes: str) -> None:
        """Adds a rectangle by its upper left corner."""
        box = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
        self.add(f'<rect {box} class="{classes}"/>')

    def polygon(self, corners: Sequence[tuple[float, float]], classes: str) -> None:
        """Adds a polygon."""
        points = " ".join(f"{number(a)},{number(b)}" for a, b in corners)
        self.add(f'<polygon points="{points}" class="{classes}"/>')

    def document(self, width: float, height: float, *, title: str, style: str, definitions: str = "") -> str:
        """The whole SVG as text, on white.

        Args:
            width: In pixels.
            height: In pixels.
            title: What a screen reader says.
            style: CSS of the classes.
            definitions: Patterns that the style refers to.
        """
        size = f'width="{number(width)}" height="{number(height)}" viewBox="0 0 {number(width)} {number(height)}"'
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
                f"<title>{clean(title)}</title>",
                f"<style>{style}</style>",
                *([f"<defs>{definitions}</defs>"] if definitions else []),
                f'<rect width="{number(width)}" height="{number(height)}" fill="#ffffff"/>',
                *self._elements,
                "</svg>\n",
            )
        )


def clean(text: str) -> str:
    """Text that may stand in XML: marked-up characters escaped, those that XML has no way to write replaced."""
    legal = (
        c if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000" else "�"
        for c in text
    )
    return escape("".join(legal))


def number(value: float) -> str:
    """A coordinate with two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
