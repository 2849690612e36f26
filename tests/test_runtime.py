"""Scale, device, and random numbers that leave no trace."""

import pytest
import torch
from torch import nn

import lrlib
from lrlib import runtime


def test_the_scale_is_tour_unless_asked(monkeypatch):
    monkeypatch.delenv("LRLIB_SCALE", raising=False)
    assert lrlib.scale_name() == "tour" and lrlib.at_scale(tour=1, full=2) == 1
    assert runtime.device().type == "cpu"
    monkeypatch.setenv("LRLIB_SCALE", "full")
    assert lrlib.scale_name() == "full" and lrlib.at_scale(tour=1, full=2) == 2
    monkeypatch.setenv("LRLIB_SCALE", "small")
    assert lrlib.at_scale(tour=1, full=2) == 1 and lrlib.at_scale(tour=min, full=max) is max
    monkeypatch.setenv("LRLIB_SCALE", "half")
    with pytest.raises(ValueError, match="LRLIB_SCALE='half'.*'tour', 'small', 'full'"):
        lrlib.scale_name()


def test_seeded_draws_repeat_and_leave_the_outer_generator_alone():
    outer = torch.get_rng_state()
    with lrlib.seeded(3):
        first = torch.rand(4)
    with pytest.raises(RuntimeError), lrlib.seeded(3):
        assert torch.equal(torch.rand(4), first)
        raise RuntimeError
    with lrlib.seeded(4):
        assert not torch.equal(torch.rand(4), first)
    assert torch.equal(torch.get_rng_state(), outer)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed=-1"), lrlib.seeded(-1):
        pass


def test_setup_prints_the_scale_alone(capsys):
    lrlib.setup()
    assert capsys.readouterr().out == "scale: tour\n"


def test_buffers_come_back_whatever_a_block_did_to_them():
    norm = torch.nn.BatchNorm1d(2)
    own = dict(norm.named_buffers())
    with pytest.raises(KeyError), runtime.buffers_kept(norm):
        norm.running_mean.fill_(3.0)
        norm.running_var = torch.full((2,), 5.0)
        norm.register_buffer("late", torch.ones(1))
        raise KeyError
    assert {name: id(buffer) for name, buffer in norm.named_buffers()} == {name: id(b) for name, b in own.items()}
    assert norm.running_mean.eq(0).all() and norm.running_var.eq(1).all()


def test_buffers_of_a_compiled_model_are_put_back():
    class Shifted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x):
            self.seen.add_(x.sum(0))
            return self.layer(x)

    model, x = Shifted(), torch.ones(2, 3)
    compiled = torch.compile(model, backend="eager")
    with runtime.buffers_kept(compiled):
        compiled(x)
    assert not model.seen.any() and compiled(x).shape == (2, 1) and model.seen.tolist() == [2, 2, 2]


def test_a_seed_beyond_what_generators_take_is_refused():
    with pytest.raises(ValueError, match="seed=.*and <= 9223372036854775807"), lrlib.seeded(2**64):
        pass


def test_modes_come_back_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Linear(1, 1).eval())
    with pytest.raises(KeyError), runtime.modes_kept(model):
        model.train()
        raise KeyError
    assert [module.training for module in model] == [True, False]


def test_a_buffer_that_two_layers_share_is_one_copy_inside_the_block():
    model = nn.Sequential(nn.Identity(), nn.Identity())
    for module in model:
        module.register_buffer("table", torch.zeros(1) if module is model[0] else model[0].table)
    with runtime.buffers_kept(model):
        model[0].table.add_(1)
        assert model[1].table.item() == 1
    assert model[0].table is model[1].table and model[0].table.item() == 0


@pytest.mark.parametrize("scale, kind", [("tour", "cpu"), ("small", "cuda"), ("full", "cuda")])
def test_a_gpu_is_used_at_all_scales_but_the_tours(monkeypatch, scale, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LRLIB_SCALE", scale)
    assert lrlib.device().type == kind
