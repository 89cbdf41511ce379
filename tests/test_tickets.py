"""What kept tickets promise: small files that hold exact bits, and nothing that is not a ticket."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given

from lthdask.storage.sparse import decoded, encoded

KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8).tolist()


@given(
    st.lists(st.integers(0, 70), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.5, 1.0]),
    st.sampled_from(KINDS),
    st.integers(0, 2**32 - 1),
)
@example([70, 70], 0.0, torch.float32, 0)
@example([3, 0], 1.0, torch.float32, 0)
def test_a_masked_tensor_comes_back_in_the_same_bits_and_zero_elsewhere(shape, density, kind, seed):
    shape = shape if np.prod(shape) < 10_000 else shape[:2]
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=random).to(kind)
    kept = torch.rand(shape, generator=random) < density
    written = encoded("w", values, kept)
    found, mask = decoded("w", written, shape)
    assert found.dtype == kind
    assert torch.equal(mask, kept)
    assert bits(found[kept]) == bits(values[kept])
    assert set(bits(found[~kept])) <= {0}
    (where,) = (tensor for name, tensor in written.items() if name != "w")
    assert len(where) <= -(-kept.numel() // 8)


@pytest.mark.parametrize(
    ("kept", "where", "expected"),
    [
        ([1, 0, 0, 1, 0, 0, 0, 0, 1], "bits", [0b1001, 1]),
        ([0] * 9, "gaps", []),
        ([0] * 300 + [1] + [0] * 600, "gaps", [255, 45, 255, 255]),
        ([0] * 254 + [1, 1] + [0] * 254, "gaps", [254, 0]),
        ([0] * 255 + [1] + [0] * 255, "gaps", [255, 0, 255]),
    ],
)
def test_places_are_written_as_the_smaller_of_bits_and_gaps(kept, where, expected):
    kept = torch.tensor(kept, dtype=torch.bool)
    written = encoded("w", torch.ones(len(kept)), kept)
    assert written.keys() == {"w", f"w.{where}"}
    assert written[f"w.{where}"].tolist() == expected


BYTE = torch.zeros(1, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("tensors", "size"),
    [
        ({"w": torch.zeros(1), "w.gaps": BYTE}, 10**15),  # would be a petabyte
        ({"w": torch.zeros(1), "w.gaps": BYTE}, 0),
        ({"w": torch.zeros(0), "w.gaps": torch.zeros(0, dtype=torch.uint8)}, 255),
        ({"w": torch.zeros(2), "w.gaps": BYTE}, 5),
        ({"w": torch.zeros(1), "w.bits": BYTE}, 8),
        ({"w": torch.zeros(0), "w.bits": BYTE}, 9),
        ({"w": torch.zeros(2), "w.bits": BYTE + 5}, 2),
        ({"w": torch.zeros(0), "w.bits": BYTE, "w.gaps": BYTE}, 8),
        ({"w": torch.zeros(0)}, 8),
        ({"w": torch.zeros(0), "w.bits": torch.zeros(1)}, 8),
        ({"w": torch.zeros(0), "w.bits": torch.zeros(1, 1, dtype=torch.uint8)}, 8),
        ({"w": torch.zeros(1, 1), "w.gaps": BYTE}, 5),
    ],
)
def test_places_that_do_not_fit_values_or_shape_are_refused(tensors, size):
    with pytest.raises(ValueError, match="w"):
        decoded("w", tensors, (size,))
