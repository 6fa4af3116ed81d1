"""Pages for people, from the templates in ``evals/pages``. What is written into HTML is text there, never markup."""

from pathlib import Path

PAGES = Path(__file__).parent / "pages"


def page(template: str, **facts: object) -> str:
    """A template filled in. A fact that it names and is not given is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template(template).render(**facts)
