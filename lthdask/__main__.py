"""The command line: ``python -m lthdask``."""

from lthdask.commands.main import main

if __name__ == "__main__":
    main()
