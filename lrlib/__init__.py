"""lrlib: learning rates for neural networks, as pure schedules, one training loop, and measurements."""

from lrlib.claims import CLAIMS, Verdict, settle
from lrlib.curvature import (
    adaptive_sharpness,
    hessian_eigenpairs,
    hessian_trace,
    hessian_vector_product,
    sharpness,
)
from lrlib.datasets import Dataset, batches, cifar10, digits, fashion_mnist, hard_digits, mnist
from lrlib.models import PreResNet, conv_net, mlp, parameter_count
from lrlib.plotting import COLORS, DASHES, band, dot_intervals, label_lines
from lrlib.records import Record, load_record, measure
from lrlib.runtime import at_scale, device, scale_name, seeded, setup
from lrlib.scheduler import ScheduleLR
from lrlib.schedules import (
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    cyclic,
    exponential,
    inverse_sqrt,
    inverse_time,
    join,
    multistep,
    one_cycle,
    polynomial,
    scale,
    step,
    warmup,
    wsd,
)
from lrlib.stats import Interval, Summary, correlation, paired, summary
from lrlib.training import History, evaluate, train

__all__ = [name for name in dir() if not name.startswith("_")]
