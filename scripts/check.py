"""The same as `lthdask check`: python scripts/check.py --help."""

from lthdask.commands.check import command

if __name__ == "__main__":
    command(prog_name="python scripts/check.py")
