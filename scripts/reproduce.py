"""The same as `lthdask reproduce`: python scripts/reproduce.py --help."""

from lthdask.commands.reproduce import command

if __name__ == "__main__":
    command(prog_name="python scripts/reproduce.py")
