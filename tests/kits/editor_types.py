"""Check the types that an editor shows: no error in the package, and most public symbols with a known type.

`python tests/kits/editor_types.py 99` fails on an error, and when less than 99 % of the public symbols are known.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKER = Path(sys.executable).with_name("basedpyright")
ROOT = Path(__file__).resolve().parents[2]


def checked(*arguments: str) -> dict[str, Any]:
    command = [CHECKER, "--pythonpath", sys.executable, "--outputjson", *arguments]
    # The checker does not follow an editable install, so it is told where the package is. With --verifytypes it takes
    # the first Python of PATH, whatever --pythonpath says.
    path = os.pathsep.join((str(CHECKER.parent), os.environ.get("PATH", os.defpath)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    if not done.stdout:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(least: float) -> int:
    errors = [each for each in checked()["generalDiagnostics"] if each["severity"] == "error"]
    for error in errors:
        print(f"{error['file']}:{error['range']['start']['line'] + 1}: {error['message']}")
    print(f"{len(errors)} errors")
    complete = checked("--verifytypes", "mentra_nb", "--ignoreexternal")["typeCompleteness"]
    percent = 100 * complete["completenessScore"]
    for symbol in complete["symbols"] if percent < least else ():
        if symbol["isExported"] and not symbol["isTypeKnown"]:
            print(symbol["name"])
    print(f"{percent:.1f} % of the public symbols have a known type")
    return int(bool(errors) or percent < least)


if __name__ == "__main__":
    raise SystemExit(main(float(sys.argv[1])))
