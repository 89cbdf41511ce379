"""Errors whose message is for the user: what was wrong, what was given, what to do."""


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence for them to read."""


class ExhaustedError(RuntimeError):
    """A run was begun too often without getting any further."""


def one_of(what: str, given: str, known: "list[str] | tuple[str, ...]") -> InputError:
    """Return the error for a name that is not among the known ones."""
    return InputError(f"unknown {what} {given!r}; known: {', '.join(sorted(known))}")
