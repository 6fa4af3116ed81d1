"""Markdown as part of a page: what it says is text there, never markup, and its tables scroll in a box of their own."""

import re
from itertools import count


def as_html(text: str, below: int = 0) -> str:
    """HTML of a Markdown text, whose headings stand ``below`` so many levels lower."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = re.sub(r"<(/?)h([1-6])>", lambda match: f"<{match[1]}h{min(6, int(match[2]) + below)}>", body)
    number = count(1)
    box = '<div class="wide" role="region" aria-label="table {} of the card" tabindex="0"><table>'
    body = re.sub("<table>", lambda _: box.format(next(number)), body)
    return body.replace("</table>", "</table></div>").replace("<th>", '<th scope="col">')
