"""What MkDocs is told beyond `mkdocs.yml`: pages of the repository's root are pages of the site, too."""

import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
# What stays in the root, where code hosts look for it, by the name of its page.
_OF_ROOT: Final = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the root."""
    for page, source in _OF_ROOT.items():
        text = (ROOT / source).read_text()
        files.append(File.generated(config, page, content=_links_as_in_docs(text)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """A link from `docs/` to a page of the root leads to that page of the site. A page without neighbours has
    no list of them."""
    if page.parent is None:
        page.meta["hide"] = ["navigation"]
    for name, source in _OF_ROOT.items():
        markdown = re.sub(rf"\]\(((?:\.\./)*)\.\./{source}(?=[#)])", rf"](\g<1>{name}", markdown)
    return markdown


def _links_as_in_docs(text: str) -> str:
    text = text.replace("](docs/", "](").replace("](README.md", "](index.md")
    for page, source in _OF_ROOT.items():
        text = text.replace(f"]({source}", f"]({page}")
    return text
