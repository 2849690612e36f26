"""lrlib: learning rates for neural networks, as pure schedules, one training loop, and measurements."""

from lrlib.augment import Augmentation, augmented
from lrlib.callbacks import (
    Callback,
    EarlyStopping,
    Evaluate,
    Periodic,
    ReduceOnPlateau,
    UpdateRatios,
    WeightAverage,
    plateaus,
)
from lrlib.claims import CLAIMS, Evidence, Verdict, settle
from lrlib.curvature import adaptive_sharpness, hessian_eigenpairs, sharpness
from lrlib.data import Dataset, batches, digits, hard_digits, hold_out, relabelled
from lrlib.datafiles import cifar10, fashion_mnist, mnist
from lrlib.diagnosis import Finding, diagnose
from lrlib.ensembles import (
    Snapshots,
    StatePath,
    barrier,
    calibration_error,
    copy_state,
    disagreement,
    member_probabilities,
    negative_log_likelihood,
    path_loss,
    refresh_batchnorm,
    train_path,
)
from lrlib.grid import GridResult, train_grid
from lrlib.hillclimb import HillClimb
from lrlib.images import ImageSchedule, image_schedule
from lrlib.invariance import (
    ExponentialEquivalent,
    TaperedExponential,
    equivalent_schedule,
    exponential_equivalent,
    is_scale_invariant,
    normalised_weights,
    radial_cosine,
    rescale,
    scaling_error,
    set_norm_eps,
    shift_momentum,
    tapered_exponential,
)
from lrlib.landscape import (
    Line,
    Plane,
    draw_path,
    draw_plane,
    draw_surface,
    loss_between,
    loss_line,
    loss_plane,
    negative_curvature,
    plane_curvature,
)
from lrlib.models import PreResNet, conv_net, in_bfloat16, mlp, parameter_count, resnet9
from lrlib.planes import Projection, parameter_vector, pca_directions, project, random_direction
from lrlib.plotting import COLORS, DASHES, band, dot_intervals, label_lines
from lrlib.rules import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    FTRLProximal,
    Hypergradient,
    Muon,
    Parabola,
    PerReplica,
    RMSprop,
    Rule,
)
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
from lrlib.stack import Stack
from lrlib.stats import Interval, Summary, correlation, paired, summary
from lrlib.tables import table
from lrlib.training import History, Run, evaluate, train

_OF_RECORDS = ("Record", "load_record", "measure")

__all__ = [name for name in dir() if not name.startswith("_")] + [*_OF_RECORDS]


def __getattr__(name: str):
    """The names of lrlib.records, imported when first asked for: `python -m lrlib.records` must find it unimported."""
    if name in _OF_RECORDS:
        from lrlib import records

        return getattr(records, name)
    raise AttributeError(f"module 'lrlib' has no attribute {name!r}")
