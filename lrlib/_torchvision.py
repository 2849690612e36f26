"""torchvision's data sets, also where its compiled part does not load.

Wheels of torchvision built against a CUDA torch fail to import beside a CPU torch ("operator torchvision::nms does not
exist"): the compiled library is skipped, and with it the schemas of two operators that the Python part then registers
kernels for. Declaring both is enough for the data sets, which use neither.
"""

from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # an operator lives as long as the library that declared it


def _declare_missing() -> None:
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)


def datasets() -> ModuleType:
    """`torchvision.datasets`.

    Raises:
        ImportError: torchvision is not installed, or does not load for another reason.
    """
    try:
        import torchvision.datasets
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _libraries:
            raise ImportError(f"torchvision does not load: {error}") from error
        _declare_missing()
        return datasets()
    return torchvision.datasets
