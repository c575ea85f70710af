"""The documentation as a site: it builds without a warning, asks no other server, and reads as in the
repository."""

import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import markdown
import pytest
import yaml
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
EXTENSIONS = ["attr_list", "md_in_html", "pymdownx.superfences", "tables"]
STRUCTURE = {"h2", "h3", "li", "ol", "pre", "table", "td", "th", "tr", "ul", "img", "strong", "em"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with warnings as errors: links, anchors and pages without an entry are among them."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_on_the_site(site: Path) -> None:
    for page in ROOT.glob("docs/**/*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        built = site / (name.parent if name.name == "index" else name) / "index.html"
        assert built.exists(), page
    for name in ("changelog", "contributing", "security"):
        assert (site / name / "index.html").exists()
    assert not list(site.glob("*.py"))


def test_no_page_asks_another_server_for_anything(site: Path) -> None:
    loading = re.compile(
        r"<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)=\"?(https?:[^\" >]+)"
    )
    asked = {url for page in site.glob("**/*.html") for url in loading.findall(page.read_text())}
    assert asked == set()
    sheets = "".join(sheet.read_text() for sheet in site.glob("**/*.css"))
    assert not re.search(r"url\([\"']?https?:", sheets)


def test_the_python_api_is_rendered(site: Path) -> None:
    page = (site / "reference/python/index.html").read_text()
    for name in ("streamflow.Stream", "streamflow.Sum", "streamflow.run_audit"):
        assert f'id="{name}"' in page
    assert "tuple_of(" not in page, "types are shown with what checks them at run time"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        if tag in STRUCTURE:
            self.seen[tag] += 1


def structure(html: str) -> Counter[str]:
    tags = _Tags()
    tags.feed(html)
    return tags.seen


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_reads_on_the_site_as_in_the_repository(page: Path) -> None:
    """MkDocs wants a blank line before a list, and four blanks before what belongs to an item; code hosts,
    which follow CommonMark, do not."""
    text = page.read_text()
    in_repository = MarkdownIt("commonmark").enable("table").render(text)
    on_site = markdown.markdown(text, extensions=EXTENSIONS)
    assert structure(on_site) == structure(in_repository)


def test_the_readme_fits_on_a_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 70


def test_ci_builds_the_site() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert "make docs" in [step.get("run") for step in jobs["docs"]["steps"]]
