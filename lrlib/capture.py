"""CUDA graphs: a function of tensors on a GPU, recorded once and replayed without the host."""

from collections.abc import Callable

import torch

__all__ = ["possible", "aside", "graph"]


def possible(device: torch.device) -> bool:
    """Whether functions of tensors on this device can be captured."""
    return device.type == "cuda"


def aside(function: Callable[[], object]) -> None:
    """Call a function on a stream of its own, as must be done a few times before it is captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)


def graph(function: Callable[[], object]) -> Callable[[], None]:
    """Capture a function, which is not run by that, and return its replay.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
    """
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        function()
    return captured.replay
