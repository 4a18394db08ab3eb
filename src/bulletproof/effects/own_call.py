"""Call a function of an app's without arguments, by a release's own python, with its packages and nothing of ours.

`python own_call.py MODULE:FUNCTION` prints one JSON object: whether it was good, and the words that say what was not.
What the function prints itself goes to the errors. It is never imported.
"""

from __future__ import annotations

import importlib
import json
import os
import sys


def main() -> None:
    """Call it, whatever comes of it, and tell."""
    told = os.dup(1)
    os.dup2(2, 1)
    sys.path[0] = os.getcwd()  # noqa: PTH109  the folder of this file would hide modules of the app's
    module, _, name = sys.argv[1].partition(":")
    try:
        found = getattr(importlib.import_module(module), name)()
    except BaseException as error:  # noqa: BLE001  a check that fails is what we are here to tell
        answer = {"is_good": False, "words": f"{type(error).__name__}: {error}"}
    else:
        is_good = found is None or found is True
        answer = {"is_good": is_good, "words": found if isinstance(found, str) else f"it returned {found!r}"}
    os.write(told, json.dumps(answer).encode())
    os._exit(0)  # threads of the app's would keep it


main()
