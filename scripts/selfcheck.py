"""The same as `lthdask selfcheck`: python scripts/selfcheck.py --help."""

from lthdask.commands.selfcheck import command

if __name__ == "__main__":
    command(prog_name="python scripts/selfcheck.py")
