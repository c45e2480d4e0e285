"""One HTML file with everything in it, pictures too, to be mailed or kept beside the figures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } img { max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } .note { color: #666; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole document; the parts are HTML."""
    return "\n".join(
        (
            f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>",
            f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>",
            *parts,
            "</body></html>\n",
        )
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>\n{body}</table>"


def image(figure: Figure | None) -> str:
    """A figure as a picture inside the document; nothing for ``None``."""
    if figure is None:
        return ""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return f'<p><img alt="" src="data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"></p>'


def number(value: float) -> str:
    """A score as people read it.

    >>> number(0.12345), number(1e-9), number(float("nan"))
    ('0.123', '1e-09', '–')
    """
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3g}"
