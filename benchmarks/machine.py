"""The line that says on what a benchmark ran."""

import joblib
import torch

from lrlib import provenance


def describe(device: torch.device) -> str:
    """The device, the cores and threads, and the version of torch."""
    return (
        f"{provenance.device_name(device)}, {joblib.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}"
    )
