"""The line that says on what a benchmark ran."""

import joblib
import torch

from lrlib import runtime


def describe(device: torch.device) -> str:
    """The device, the cores and threads, and the version of torch."""
    return (
        f"{runtime.device_label(device)}, {joblib.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}"
    )
