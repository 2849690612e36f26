"""torchvision's data sets, also where its compiled part does not load.

Wheels of torchvision built against a CUDA torch fail to import beside a CPU torch ("operator torchvision::nms does not
exist"): the compiled library is skipped, and with it the schemas of two operators that the Python part then registers
kernels for. Declaring both is enough for the data sets, which use neither.
"""

from types import ModuleType

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def datasets() -> ModuleType:
    """`torchvision.datasets`.

    Raises:
        ImportError: torchvision is not installed, or does not load for another reason.
    """
    try:
        import torchvision.datasets
    except RuntimeError as error:
        if "torchvision::" not in str(error) or hasattr(torch.ops.torchvision, "nms"):
            raise ImportError(f"torchvision does not load: {error}") from error
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", _SCHEMA)
        return datasets()
    return torchvision.datasets
