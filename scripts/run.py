"""The same as `lthdask run`: python scripts/run.py --help."""

from lthdask.commands.run import command

if __name__ == "__main__":
    command(prog_name="python scripts/run.py")
