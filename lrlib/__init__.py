"""lrlib: learning rates for neural networks, as pure schedules, one training loop, and measurements."""

from lrlib.augment import *
from lrlib.batch import *
from lrlib.callbacks import *
from lrlib.claims import CLAIMS, Evidence, Verdict, settle
from lrlib.curvature import *
from lrlib.data import *
from lrlib.datafiles import *
from lrlib.decay import *
from lrlib.diagnosis import *
from lrlib.distance import *
from lrlib.ensembles import *
from lrlib.fine_tuning import *
from lrlib.grid import *
from lrlib.hillclimb import *
from lrlib.images import *
from lrlib.invariance import *
from lrlib.landscape import *
from lrlib.linesearch import *
from lrlib.lookahead import *
from lrlib.models import *
from lrlib.planes import *
from lrlib.plateau import *
from lrlib.plotting import *
from lrlib.problems import *
from lrlib.rule import Rule
from lrlib.rules import *
from lrlib.runtime import *
from lrlib.scheduler import *
from lrlib.schedules import *
from lrlib.shapes import *
from lrlib.stack import *
from lrlib.stats import *
from lrlib.tables import table
from lrlib.text import *
from lrlib.theory import *
from lrlib.training import *
from lrlib.transformer import *
from lrlib.width import *

_OF_RECORDS = ("Record", "load_record", "measure", "values_by", "whole_record")

__all__ = [name for name in dir() if not name.startswith("_")] + [*_OF_RECORDS]


def __getattr__(name: str):
    """The names of lrlib.records, imported when first asked for: `python -m lrlib.records` must find it unimported."""
    if name in _OF_RECORDS:
        from lrlib import records

        return getattr(records, name)
    raise AttributeError(f"module 'lrlib' has no attribute {name!r}")
