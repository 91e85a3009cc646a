"""docs/threats.md and the tests are in step. `python tests/attacks/test_threats.py` prints its first tables anew."""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

from gallery import ATTACKS, Attack  # noqa: E402 - run as a script, it needs the path above

TEXT = (ROOT / "docs" / "threats.md").read_text() if (ROOT / "docs" / "threats.md").exists() else ""
SUBJECTS = ("doors", "trust", "places", "messages", "models", "answers", "floods")


def subject(attack: Attack) -> str:
    """The gallery file it is in."""
    return attack.run.__module__.rpartition(".")[2]


def row(attack: Attack) -> str:
    """Its line in the table."""
    return f"| {attack.name} | {attack.tries} |"


def test_every_attack_has_its_line_and_every_line_its_attack():
    lines = re.findall(r"^\| (?!attack|---|what)[^|]+ \| [^|`]+ \|$", TEXT, re.M)
    assert sorted(lines) == sorted(row(attack) for attack in ATTACKS.values())


def test_every_attack_stands_under_its_subject():
    for part in re.split(r"^## ", TEXT, flags=re.M):
        if found := re.search(r"`tests/attacks/gallery/(\w+)\.py`", part):
            expected = [row(attack) for attack in ATTACKS.values() if subject(attack) == found[1]]
            assert [line for line in part.splitlines() if line in expected] == expected
    assert set(re.findall(r"gallery/(\w+)\.py", TEXT)) == set(SUBJECTS)


def test_there_are_more_than_the_forty_that_were_asked_for():
    assert len(ATTACKS) > 40
    assert len({attack.tries for attack in ATTACKS.values()}) == len(ATTACKS)


def test_tests_named_on_the_page_exist():
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT):
        source = (ROOT / file).read_text()
        assert not name or re.search(rf"def {name}\(", source), f"{file} has no {name}"


if __name__ == "__main__":
    ordered = sorted(ATTACKS.values(), key=lambda attack: SUBJECTS.index(subject(attack)))
    for name, group in groupby(ordered, subject):
        print(f"\n## {name} (`tests/attacks/gallery/{name}.py`)\n\n| attack | what it tries |\n|---|---|")
        print("\n".join(map(row, group)))
