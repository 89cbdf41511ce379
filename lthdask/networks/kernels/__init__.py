"""Kernels for a GPU, in Triton: the depthwise convolution, and batch norm with its ReLU6.

They are where a cohort's step spends its bytes. cuDNN takes a hundred times as long for some
depthwise convolutions of many models, and PyTorch's batch norm and ReLU6 pass thirteen times over
what eight passes can do. :func:`require_right` compares them with PyTorch's on the device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lthdask.networks.kernels.batch_norm import batch_norm
from lthdask.networks.kernels.depthwise import depthwise

__all__ = ["batch_norm", "depthwise", "require_right"]

CLOSE = {torch.float32: 5e-3, torch.bfloat16: 2e-2}
"""How far a kernel may be from PyTorch's in float32: some of those multiply in TF32."""


def require_right(device: torch.device) -> None:
    """Run the kernels on a little data, and compare the results with PyTorch's.

    Raises
    ------
    RuntimeError
        If one of them is not right. If one cannot be built, what Triton raises.
    """
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device).requires_grad_()

    taps, gain, offset = drawn(70, 3, 3), drawn(70), drawn(70)
    for kind, size, stride, relu6 in (
        (torch.bfloat16, 4, 1, True),  # 320 rows, which several programs share
        (torch.bfloat16, 4, 2, False),
        (torch.bfloat16, 1, 1, True),
        (torch.float32, 2, 2, True),
    ):
        images = drawn(20, 70, size, size).to(kind).detach().requires_grad_()
        same = images.detach().float().requires_grad_()
        ours, theirs = (
            (torch.zeros(70, device=device), torch.ones(70, device=device)) for _ in range(2)
        )
        convolved = F.conv2d(same, taps[:, None], None, stride, 1, 1, 70)
        plain = F.batch_norm(same, *theirs, gain, offset, True)
        found = batch_norm(images, gain, offset, *ours, 0.1, 1e-5, relu6)
        _require_close(depthwise(images, taps, stride), convolved, images, same, taps)
        _require_close(found, F.relu6(plain) if relu6 else plain, images, same, gain, offset)
        for one, other in zip(ours, theirs, strict=True):
            _require_close(one, other)


def _require_close(
    ours: Tensor, theirs: Tensor, images: Tensor | None = None, *given: Tensor
) -> None:
    """Compare two results, and their gradients by `images` or what they equal, and by the rest."""
    pairs = [(ours, theirs)]
    if images is not None:
        same, *rest = given
        counts = torch.linspace(-1, 1, theirs.numel(), device=theirs.device).view_as(theirs)
        of_ours = torch.autograd.grad(ours, (images, *rest), counts.to(ours.dtype))
        of_theirs = torch.autograd.grad(theirs, (same, *rest), counts)
        pairs += zip(of_ours, of_theirs, strict=True)
    for one, other in pairs:
        off = ((one.float() - other).norm() / other.norm()).item()
        if not off < CLOSE[ours.dtype]:
            raise RuntimeError(f"a kernel is off by {off:.1%} from what PyTorch computes")
