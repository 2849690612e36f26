"""The field of the races: each shape has one free number, and what its description says of it is so."""

import numpy as np
import pytest

import lrlib

T = 300
AT = np.arange(T)


@pytest.mark.parametrize("name", lrlib.SHAPES)
@pytest.mark.parametrize("steps", [40, T, 1171])
def test_the_peak_is_the_one_free_number(name, steps):
    rates = lrlib.SHAPES[name](0.3, steps)(np.arange(steps))
    lowest = 0.65 if name in ("portrait", "puppy", "digit") else 0.97  # no pixel of a picture may be pure white
    assert lowest * 0.3 < rates.max() <= 0.3 + 1e-12 and rates.min() >= 0
    np.testing.assert_allclose(lrlib.SHAPES[name](0.6, steps)(np.arange(steps)), 2 * rates, rtol=1e-9, atol=1e-15)


def test_the_shapes_are_as_described():
    rates = {name: shape(1.0, T)(AT) for name, shape in lrlib.SHAPES.items()}
    assert (rates["constant"] == 1).all()
    np.testing.assert_allclose([rates["step"][t] for t in (99, 100, 199, 200, 299)], [1, 0.1, 0.1, 0.01, 0.01])
    np.testing.assert_allclose([rates["multistep"][t] for t in (149, 150, 224, 225)], [1, 0.1, 0.1, 0.01])
    np.testing.assert_allclose(rates["exponential"][-1], 0.01, rtol=0.02)
    np.testing.assert_allclose(rates["1/t"][-1], 0.1, rtol=0.02)
    assert rates["1/√t"].argmax() in (29, 30) and rates["WSD"].argmin() in (0, T - 1)
    assert (rates["WSD"][15:225] == 1).all() and rates["WSD"][226] < 1
    jumps = np.flatnonzero(np.diff(rates["restarts"]) > 0.5) + 1
    assert jumps.tolist() == [43, 129]
    assert (np.diff(np.sign(np.diff(rates["triangular"]))) < 0).sum() == 3
    assert rates["one cycle"].argmax() in range(88, 92)


def test_where_the_shapes_end_and_how_low_they_begin():
    steps = 301  # not a multiple of three
    shape = {name: make(1.0, steps) for name, make in lrlib.SHAPES.items()}
    assert len(set(shape["step"](np.arange(steps)).tolist())) == 3
    assert shape["exponential"](steps) == pytest.approx(0.01, rel=1e-9)
    assert shape["1/t"](steps) == pytest.approx(0.1, rel=1e-9)
    assert shape["WSD"](14) < 1 == shape["WSD"](15)
    assert shape["triangular"](0) == pytest.approx(0.01)
    for name in ("portrait", "puppy", "digit"):
        assert "base_lr=0.001, max_lr=1.0" in repr(shape[name])
