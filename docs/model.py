"""Print the table of docs/model.md, computed from the shipped studies: python docs/model.py."""

from lthdask.commands.completion import shipped
from lthdask.data.inputs import inputs_of
from lthdask.lottery.size import size_of
from lthdask.study import Study

IMAGENET = (3, 224, 224), 1000
"""What a folder of images holds here."""


def table() -> str:
    """Return a row for each shipped study."""
    rows = [
        "| study | network | image | parameters | of which prunable | multiply-adds of an image |",
        "|---|---|---|---|---|---|",
    ]
    for name in shipped("studies"):
        study = Study.read(name)
        size = size_of(study.network, *(inputs_of(study.data, None) or IMAGENET))
        called, form = study.network.name, study.network.settings().get("form")
        called += f", form {form}" if form else ""
        row = [f"`{name}`", called, "×".join(map(str, size.input)), f"{size.parameters:,}"]
        row += [f"{size.prunable:,}", f"{size.multiply_adds:,}"]
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
