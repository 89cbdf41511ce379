"""A network as ONNX, which is run and compared before it is given away."""

import logging
import warnings
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import nn

from lthdask.errors import InputError
from lthdask.export.outputs import agree
from lthdask.networks.mobilenet import Depthwise, Pointwise

NEEDED = "ONNX needs more packages; install them with: pip install 'lthdask[export]'"


def as_onnx(network: nn.Module, shape: Sequence[int], sparse: bool = False) -> bytes:
    """Return a network as an ONNX file: ``images``, (N, *shape), to ``logits``, for any N.

    Parameters
    ----------
    network : nn.Module
    shape : sequence of int
        Shape of one input.
    sparse : bool
        Whether weights with many zeros are sparse initializers, which ONNX Runtime reads, and some
        other programs do not.

    Raises
    ------
    InputError
        If packages are missing, or ONNX Runtime computes something else than PyTorch.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - PyTorch's exporter needs it
    except ImportError:
        raise InputError(NEEDED) from None
    network = deepcopy(network).eval()
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = network(images).numpy()
    for layer in network.modules():
        if isinstance(layer, Pointwise | Depthwise):
            layer.__class__ = nn.Conv2d  # type: ignore[assignment]  # ours are faster in training, and fix the batch's size
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of its own parts that are deprecated
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N")},),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    if program is None:
        raise InputError("PyTorch cannot write this network as ONNX")
    model = program.model_proto
    if sparse:
        _make_sparse(model.graph)
    content: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    if not agree(found, wanted):
        raise InputError("ONNX Runtime computes something else than PyTorch from this network")
    onnx.checker.check_model(content)
    return content


def _make_sparse(graph: "onnx.GraphProto") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Hold weights as their values and places where that is smaller."""
    from onnx import helper, numpy_helper

    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        places = np.flatnonzero(values)
        # a place takes 8 bytes, and a value 4
        if values.dtype == np.float32 and values.ndim > 1 and 3 * len(places) < values.size:
            kept = numpy_helper.from_array(values.ravel()[places], tensor.name)
            where = numpy_helper.from_array(places.astype(np.int64), f"{tensor.name}_places")
            graph.sparse_initializer.append(
                helper.make_sparse_tensor(kept, where, list(values.shape))
            )
            graph.initializer.remove(tensor)
