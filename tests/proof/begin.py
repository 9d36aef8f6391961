"""Begins a submission: `make submission`, once what was submitted before has landed and nothing has changed since."""

from __future__ import annotations

import subprocess
import sys

from tests.proof.touched import ROOT, SUBMISSION, submission

_TEXT = """# Written by `make submission` when work on a new submission begins; see CONTRIBUTING.md.
# `number` decides which part of the rotation a run takes, `landed` what counts as changed since then.
number = {number}
landed = "{landed}"
"""


def main() -> None:
    """Write the next number, and the commit that everything since is compared with."""
    arguments = ["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"]
    if subprocess.run(arguments, capture_output=True, text=True, check=True).stdout:
        sys.exit("There are changes that are not committed: a submission begins from what landed.")
    arguments = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip()
    number, _ = submission()
    SUBMISSION.write_text(_TEXT.format(number=number + 1, landed=head))
    print(f"submission {number + 1}, from {head[:12]}: commit {SUBMISSION.relative_to(ROOT)} with the work")


if __name__ == "__main__":
    main()
