"""What the documents say of the repository is so."""

import json
import re
from pathlib import Path

import pytest

from streamflow.privacy import Hasher
from streamflow.streams.user_events import UserEvent

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))]
FOLDERS = {folder.name for folder in ROOT.iterdir() if folder.is_dir()}
TESTS = {file.name for file in ROOT.glob("tests/**/*.py")}


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_is_there(page: str) -> None:
    for path in re.findall(r"`([\w./-]+)`", (ROOT / page).read_text()):
        first = path.split("/")[0]
        if "/" in path and first in FOLDERS and not first.startswith("."):
            assert (ROOT / path).exists(), path
        if re.fullmatch(r"test_\w+\.py", path):
            assert path in TESTS, path


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        file = folder / target if target else ROOT / page
        assert file.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in titles}
            assert anchor in anchors, link


def test_the_example_of_user_events_satisfies_their_contract() -> None:
    [block] = re.findall(
        r"```json\n(.+?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL
    )
    events = [json.loads(line) for line in block.splitlines()]
    assert set().union(*events) == set(UserEvent.model_fields)
    for event in events:
        if "user_email" in event:
            event["user_email"] = Hasher().hash(event["user_email"])
        UserEvent.model_validate_json(json.dumps(event))


def test_guarantees_that_code_cites_are_described() -> None:
    page = (ROOT / "docs/guarantees.md").read_text()
    described = set(re.findall(r"^## (G\d+) ", page, re.MULTILINE))
    folders = [name for name in FOLDERS if re.match(r"stream|tests", name)]
    cited = {
        number
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
        for number in re.findall(r"\bG\d{1,2}\b", file.read_text())
    }
    assert cited <= described
    assert len(described) == 16
