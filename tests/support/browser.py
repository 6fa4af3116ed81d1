"""A page in headless Chromium, without a driver: it is put into a frame of a given width, a script looks at it and
leaves what it found in the document that Chromium prints."""

import html
import json
import re
import shutil
import subprocess
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(str(distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")))
"""axe-core's source; the package around it is not imported, as it asks for Playwright."""

_FRAME = """<!doctype html><meta charset="utf-8"><title>frame</title>
<iframe id="page" style="width: {width}px; height: 800px; border: 0" srcdoc="{page}"></iframe><pre id="found"></pre>
<script>
const put = found => {{ document.getElementById("found").textContent = JSON.stringify(found) }};
document.getElementById("page").onload = async event => {{
  const inside = event.target.contentWindow, root = inside.document.documentElement;
  const found = {{width: inside.innerWidth, closed: root.scrollWidth}};
  inside.document.querySelectorAll("details").forEach(each => each.open = true);
  found.open = root.scrollWidth;
  inside.eval({axe});
  const seen = await inside.axe.run(inside.document, {{resultTypes: ["violations"]}});
  found.passes = seen.passes.length;
  found.violations = seen.violations.map(each => [each.id, each.nodes.map(node => node.html.slice(0, 200))]);
  put(found);
}};
</script>"""


class Look(NamedTuple):
    """``width`` of the window and of what is in it, with all details closed and open; the rules of axe-core that it
    breaks and how many it keeps; what the console said."""

    width: int
    closed: int
    open: int
    violations: list[Any]
    passes: int
    console: list[str]


def look(page: str, width: int, folder: Path) -> Look:
    frame = folder / "frame.html"
    script = json.dumps(AXE.read_text(encoding="utf-8")).replace("</", "<\\/")
    frame.write_text(_FRAME.format(width=width, page=html.escape(page), axe=script), encoding="utf-8")
    document, console = visit(frame.as_uri(), folder)
    printed = re.search(r'<pre id="found">(.+?)</pre>', document, re.DOTALL)
    assert printed is not None, console
    return Look(**json.loads(html.unescape(printed[1])), console=console)


def visit(url: str, folder: Path) -> tuple[str, list[str]]:
    """The document that a page has become, by its own scripts and under its own headers; and what the console said."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--log-level=0"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
