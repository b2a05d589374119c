"""The walk in CONTRIBUTING.md is the way that a batch takes."""

import re

from benchmarks.house import ROOT
from benchmarks.walk import files_of_a_step


def test_a_batch_passes_the_files_of_the_walk_in_that_order():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    walk = re.findall(r"^\d+\. \[`[^`]+`\]\(([^)]+)\)", text, flags=re.MULTILINE)
    assert len(walk) == 10
    passed = list(files_of_a_step())
    assert walk == [path for path in passed if path in walk], passed
