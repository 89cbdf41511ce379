"""The command line: ``python -m lthdask``."""

import os
import sys

HERE = os.path.dirname(os.path.dirname(__file__))
if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] != HERE:
    del sys.path[0]  # the working directory, where a random.py is not Python's


def main() -> None:
    """Run a command, once all that it is made of can be imported."""
    try:
        from lthdask.commands.main import main as command
    except Exception as error:
        from lthdask.surroundings import hidden_by

        if problem := hidden_by(error):
            sys.exit(f"error: {problem}")
        raise
    command()


if __name__ == "__main__":
    main()
