"""The command line: ``python -m lthdask``."""

import os
import sys

HERE = os.path.dirname(os.path.dirname(__file__))
if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] != HERE:
    del sys.path[0]  # the working directory, where a random.py is not Python's

from lthdask.commands.main import main  # noqa: E402

if __name__ == "__main__":
    main()
