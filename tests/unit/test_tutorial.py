"""What the tutorial's test takes for the same, and what not."""

import pytest

from tutorial import Command, File, matches, steps

PAGE = """
Save this as `a.py`:

```python
x = 1
```

```console
$ first --option
shown  1
…
$ second
```
"""


def test_files_and_commands_come_in_order() -> None:
    assert list(steps(PAGE)) == [
        File("a.py", "x = 1\n"),
        Command("first --option", "shown  1\n…\n"),
        Command("second", ""),
    ]


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a  b", "a b  \n", True),
        ("sent 4 in … s", "sent 4 in 0.3 s", True),
        ("a\n…\nc", "a\nb\nb\nc\n", True),
        ("a\n…\nc", "a\nc\n", True),
        ("a\n…\nc", "a\nb\n", False),
        ("a", "a\nb", False),
        ("sent 4", "sent 44", False),
        ("a.c", "abc", False),
    ],
)
def test_what_is_shown_is_compared(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same
