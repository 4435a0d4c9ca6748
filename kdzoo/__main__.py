"""``python -m kdzoo`` is the command ``kdzoo``."""

import os
import sys

# ``python -m`` puts the working folder first, where a file would be imported in the place of a library.
if not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]

from kdzoo.cli.main import main

if __name__ == "__main__":
    main()
