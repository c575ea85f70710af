"""The tutorial of the docs, command by command: a new folder, a real stack, the output that is shown."""

import os
import sys
from pathlib import Path

import pytest

from folders import free_offset
from tutorial import Command, Reader, steps

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[2] / "docs/tutorial.md"
INSTALL = "pip install 'streamflow-kafka[all]'"


@pytest.mark.usefixtures("_clean_environment")
def test_a_new_user_can_follow_the_tutorial(tmp_path: Path) -> None:
    checkout = Path(sys.executable).parent
    environment = {
        **os.environ,
        "COLUMNS": "160",
        "STREAMFLOW_PORT_OFFSET": str(free_offset()),
    }
    installed = False
    with Reader(tmp_path, environment) as reader:
        try:
            for step in steps(PAGE.read_text()):
                if isinstance(step, Command) and step.line == INSTALL:
                    installed = True
                    reader.follow(Command(f'PATH="{checkout}:$PATH"', ""))
                else:
                    reader.follow(step)
        finally:
            reader.type("streamflow down --purge")
    assert installed
