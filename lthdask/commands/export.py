"""A ticket to take home: its weights, what a program wants to know of it, and its card."""

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from rich.console import Console

from lthdask.commands import completion, options
from lthdask.commands.shared import exit_with, rewind_epoch_of, say

if TYPE_CHECKING:
    from lthdask.export.folder import Dtype, Form

# Everything else is imported when it is needed: --help must not wait for torch.


@click.command("export", context_settings=options.CONTEXT)
@click.argument(
    "folder", metavar="RUN", type=click.Path(path_type=Path), shell_complete=completion.folder
)
@options.a_folder("-o", required=True, metavar="DIR", help="Folder to write.")
@click.option(
    "--threshold",
    type=float,
    help="Default: that of the sparsest ticket within the margin of the dense accuracy.",
)
@click.option("--rewind-epoch", metavar="K", help="Default: the best on the validation images.")
@click.option("--arm", default="ticket", show_default=True)
@click.option(
    "--replicate", type=int, metavar="R", help="Default: that of median validation accuracy."
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    default="fp32",
    show_default=True,
    help="What the weights are rounded to; fp32 keeps their bits.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["sparse", "dense", "onnx", "onnx-sparse"]),
    default="sparse",
    show_default=True,
    help="The survivors and where they are; or all weights, zeros included, under timm's names "
    "where timm has the network; or ONNX, also with sparse initializers.",
)
@click.option(
    "--compact",
    is_flag=True,
    help="As ONNX, without the channels that do nothing; the outputs are the same.",
)
@click.option(
    "--upload", metavar="USER/NAME", help="Model on the Hugging Face hub to send the folder to."
)
@options.code
def command(
    folder: Path,
    o: Path,
    threshold: float | None,
    rewind_epoch: str | None,
    arm: str,
    replicate: int | None,
    dtype: "Dtype",
    form: "Form",
    compact: bool,
    upload: str | None,
    code: tuple[Path, ...],
) -> None:
    """Write a ticket that RUN kept into a folder of its own, to use and to share.

    The weights are plain safetensors, beside config.json and a card for people, README.md. Nothing
    is sent anywhere without --upload. A run keeps tickets with --keep.

    Exit codes: 0 if it was written, 2 for invalid input.
    """
    console = Console()

    def body() -> int:
        from lthdask.export.choice import Asked
        from lthdask.export.folder import ALL, export
        from lthdask.export.upload import require_hub
        from lthdask.export.upload import upload as send

        k = rewind_epoch_of(rewind_epoch)
        if upload is not None:
            require_hub(upload)
        done = export(folder, o, Asked(threshold, k, arm, replicate), dtype, form, compact, code)
        share = 100 * done.size / done.dense_size
        say(console, f"{done.cell}: {o}, {done.size / 1e3:,.0f} KB, {share:.3g} % of a dense file")
        if upload is not None:
            say(console, f"uploaded to {send(o, upload, ALL)}")
        return 0

    exit_with(console, body)
