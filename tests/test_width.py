"""µP's groups, the rule with settings by parameter, and the coordinate check, against PyTorch and against theory."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrlib

PLACES = {"place": "input"}


def transformer(width):
    return lrlib.char_transformer(11, length=6, width=width, depth=1, heads=width // 4)


def mlps(width=64, base=16):
    return lrlib.mlp(64, width, width, 10), lrlib.mlp(64, base, base, 10)


def test_rates_of_a_transformer():
    rates = lrlib.mup_rates(transformer(32), transformer(8), kinds=PLACES)
    hidden = {name for name, factor in rates.items() if factor == 0.25}
    parts = ("attention.query_key_value", "attention.out", "up", "down")
    assert hidden == {f"blocks.0.{part}.weight" for part in parts} | {"head.weight"}
    assert all(factor == 1 for name, factor in rates.items() if name not in hidden)


def test_rates_of_sgd_follow_outputs_over_inputs():
    assert list(lrlib.mup_rates(*mlps(), optimizer="sgd").values()) == [4, 4, 1, 4, 0.25, 1]
    uneven = lrlib.mlp(64, 32, 128, 10), lrlib.mlp(64, 16, 16, 10)
    assert list(lrlib.mup_rates(*uneven, optimizer="sgd").values()) == [2, 2, 4, 8, 0.125, 1]
    assert list(lrlib.mup_rates(*uneven).values()) == [1, 1, 0.5, 1, 0.125, 1]


def test_convolutions_and_norms_are_known():
    def net(width):
        return nn.Sequential(
            nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, groups=2), nn.GroupNorm(2, width),
            nn.Conv2d(width, width, 3, groups=width), nn.Flatten(), nn.Linear(width, 5),
        )  # fmt: skip

    assert list(lrlib.mup_rates(net(16), net(4)).values()) == [1, 1, 1, 1, 0.25, 1, 1, 1, 1, 1, 0.25, 1]


def test_groups_keep_the_product_of_rate_and_decay():
    model, base = mlps()
    groups = lrlib.mup_groups(model, base, lr=0.01, weight_decay=0.1)
    assert sum(len(group["params"]) for group in groups) == 6
    assert {group["lr"] for group in groups} == {0.01, 0.0025}
    assert all(group["lr"] * group["weight_decay"] == pytest.approx(0.001, rel=1e-12) for group in groups)
    assert "weight_decay" not in lrlib.mup_groups(model, base, lr=0.01)[0]
    for optimizer in (torch.optim.AdamW, torch.optim.NAdam, torch.optim.Adamax, lrlib.Lion().optimizer):
        assert [g["lr"] for g in optimizer(groups, lr=1.0).param_groups] == [0.01, 0.0025]


def test_of_the_bases_width_nothing_changes():
    model, base = mlps(16, 16)
    before = [p.clone() for p in model.parameters()]
    assert set(lrlib.mup_rates(model, base).values()) == {1.0}
    assert lrlib.mup_init_(model, base) is model
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_only_the_output_layer_starts_smaller():
    model, base = mlps()
    before = [p.clone() for p in model.parameters()]
    lrlib.mup_init_(model, base)
    ratios = [(new / old).mean().item() for old, new in zip(before, model.parameters(), strict=True)]
    np.testing.assert_allclose(ratios, [1, 1, 1, 1, 0.5, 1], rtol=1e-6)


class Tied(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, width), nn.Linear(width, 5, bias=False)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize(
    ("make", "kinds", "message"),
    [
        (lambda w: nn.ModuleDict({f"layer{w}": nn.Linear(3, w)}), None, "same architecture"),
        (lambda w: nn.Linear(3, w) if w == 8 else nn.Linear(3, w, bias=False), None, "same architecture"),
        (Tied, None, "'head.weight' is tied"),
        (transformer, None, "'place', of shape .* in a CharTransformer.* must be named in kinds"),
        (lambda w: nn.Embedding(w, 4), None, "in a Embedding"),
        (lambda w: nn.MultiheadAttention(w, 2), None, "'in_proj_weight'"),
        (lambda w: nn.ConvTranspose2d(w, w, 3), None, "in a ConvTranspose2d"),
        (lambda w: nn.LayerNorm((3, w)), None, "in a LayerNorm"),
        (lambda w: nn.Conv2d(3, w, w), None, "kernel of 'weight'"),
        (lambda w: nn.Linear(3, w), {"bias": "vector"}, "kinds"),
        (lambda w: nn.Linear(3, w), {"gain": "input"}, "'gain'"),
    ],
)
def test_what_is_not_known_is_refused(make, kinds, message):
    for ask in (lrlib.mup_rates, lrlib.mup_init_, lambda *a, **k: lrlib.mup_groups(*a, lr=0.1, **k)):
        with pytest.raises(ValueError, match=message):
            ask(make(8), make(4), kinds=kinds)


def test_kinds_say_what_a_parameter_is():
    model, base = nn.MultiheadAttention(16, 4), nn.MultiheadAttention(4, 1)
    kinds = {"in_proj_weight": "hidden", "in_proj_bias": "input"}
    assert list(lrlib.mup_rates(model, base, kinds=kinds).values()) == [0.25, 1, 0.25, 1]
    assert lrlib.mup_rates(nn.Bilinear(8, 3, 2), nn.Bilinear(2, 3, 2), kinds={"weight": "output"})["weight"] == 0.25


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"lr": 0.0}, "lr"), ({"weight_decay": -1.0}, "^weight_decay=-1"), ({"optimizer": "muon"}, "muon")],
)
def test_bad_numbers_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        lrlib.mup_groups(*mlps(), **{"lr": 0.1, **changed})


def scaled(model, base, decay):
    factors = list(lrlib.mup_rates(model, base).values())
    scales = {"lr": factors, "weight_decay": [1 / factor for factor in factors]}
    return lrlib.PerParameter(lrlib.AdamW(weight_decay=decay), scales)


def test_the_rule_is_torchs_parameter_groups():
    data = lrlib.digits()
    with lrlib.seeded(0):
        first, base = mlps()
    second = lrlib.mlp(64, 64, 64, 10)
    second.load_state_dict(first.state_dict())
    pair = data.x_train.double(), data.y_train
    schedule = lrlib.polynomial(1.0, total_iters=20)
    groups = lrlib.mup_groups(second.double(), base, lr=0.01, weight_decay=0.5)
    lrlib.train(first.double(), pair, lrlib.scale(schedule, 0.01), steps=20, optimizer=scaled(first, base, 0.5))
    rates = [lrlib.scale(schedule, group["lr"]) for group in groups]
    lrlib.train(second, pair, rates, steps=20, optimizer=torch.optim.AdamW(groups))
    for mine, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


def test_in_a_stack_each_replica_is_trained_as_alone():
    data, rates = lrlib.digits(), [0.003, 0.01, 0.03]
    nets = lrlib.initialised(lambda: lrlib.mlp(64, 32, 32, 10), [4, 5, 6])
    rule, stack = scaled(nets[0], mlps()[1], 0.1), lrlib.Stack(nets)
    lrlib.train(stack, data, rates, steps=5, optimizer=rule, seed=[4, 5, 6])
    for r, (net, rate) in enumerate(zip(nets, rates, strict=True)):
        lrlib.train(net, data, rate, steps=5, optimizer=rule, seed=4 + r)
        for name, value in stack.replica(r).items():
            torch.testing.assert_close(value, net.state_dict()[name], rtol=1e-3, atol=1e-5)


def test_its_optimizer_has_a_group_for_each_parameter():
    model, base = mlps()
    optimizer = scaled(model, base, 0.5).optimizer(model.parameters(), lr=0.01)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01, 0.0025, 0.01, 0.0025, 0.01]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.5, 2.0, 0.5, 2.0, 0.5]


@pytest.mark.parametrize(
    ("rule", "scales", "error", "message"),
    [
        ("adam", {"lr": [1.0]}, TypeError, "rule='adam'"),
        (lrlib.Hypergradient(), {"lr": [1.0]}, ValueError, "by itself"),
        (lrlib.Adam(), {"momentum": [1.0]}, ValueError, "momentum"),
        (lrlib.Adam(), {"lr": [1.0, 0.0]}, ValueError, r"scales\['lr'\]\[1\]=0.0"),
    ],
)
def test_a_bad_rule_is_refused(rule, scales, error, message):
    with pytest.raises(error, match=message):
        lrlib.PerParameter(rule, scales)


def test_one_factor_for_each_parameter():
    with pytest.raises(ValueError, match="has 2 factors, must be 4"):
        lrlib.train(
            lrlib.mlp(64, 8, 10),
            lrlib.digits(),
            0.1,
            steps=1,
            optimizer=lrlib.PerParameter(lrlib.Adam(), {"lr": [1, 2]}),
        )
    for count in (1, 3):
        with pytest.raises(ValueError, match=f"has 2 factors, must be {count}, one a parameter"):
            lrlib.PerParameter(lrlib.Adam(), {"lr": [1, 2]}).optimizer([nn.Parameter(torch.ones(1))] * count, 0.1)


def test_a_multiplier_in_the_output_is_the_same_parametrisation():
    """A head divided by m, started √m larger and at the full rate, is one that is not divided, at the rate over m."""

    class Divided(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.body, self.head, self.by = nn.Linear(6, 32), nn.Linear(32, 3, bias=False), by

        def forward(self, x):
            return self.head(self.body(x).relu()) / self.by

    with lrlib.seeded(0):
        plain, divided, x = Divided(1.0).double(), Divided(4.0).double(), torch.randn(20, 6, dtype=torch.float64)
    divided.load_state_dict(plain.state_dict())
    divided.head.weight.data *= 4
    y = torch.arange(20) % 3
    for model, rate in ((plain, 0.01 / 4), (divided, 0.01)):
        groups = [{"params": model.body.parameters()}, {"params": model.head.parameters(), "lr": rate}]
        optimizer = torch.optim.Adam(groups, lr=0.01, eps=1e-30)
        for _ in range(30):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    torch.testing.assert_close(plain(x), divided(x), rtol=1e-7, atol=1e-9)


def check(parametrised, widths=(16, 32, 64, 128), make=lambda w: lrlib.mlp(64, w, w, 10), kinds=None, **options):
    def made(width):
        model = make(width)
        if not parametrised:
            return model, torch.optim.Adam(model.parameters(), lr=0.003)
        lrlib.mup_init_(model, make(widths[0]), kinds=kinds)
        return model, torch.optim.Adam(lrlib.mup_groups(model, make(widths[0]), lr=0.003, kinds=kinds))

    data = lrlib.digits()
    return lrlib.coordinate_check(
        made, widths, options.pop("x", data.x_train[:64]), options.pop("y", data.y_train[:64]), **options
    )


def test_the_check_tells_the_two_parametrisations_apart():
    bad, good = check(False), check(True)
    assert bad.names == ("1", "3", "5") and bad.size.shape == bad.change.shape == (3, 4, 5)
    assert bad.worst > 0.6 and bad.exponents["5"] == bad.worst
    assert good.worst < 0.25


def test_the_check_of_a_transformer():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(11, (2, 16, 6), generator=generator)
    found = [check(p, (8, 16, 32), transformer, PLACES, x=x, y=y, seeds=range(3)) for p in (False, True)]
    assert found[0].worst > 0.7 and found[1].worst < 0.35
    assert "blocks.0.attention.out" in found[0].names


def test_the_first_update_moves_a_layer_by_its_inputs_size():
    """Of one example, |Δh| is η times the sum of the inputs' absolute values; layers of several sizes agree exactly."""

    def make(width):
        model = nn.Sequential(nn.Linear(64, width, bias=False), nn.Linear(width, 3, bias=False)).double()
        model[0].weight.requires_grad_(False).copy_(torch.full((width, 64), 0.125))
        return model, torch.optim.Adam(model[1:].parameters(), lr=0.001, eps=1e-30)

    x, y = torch.ones(1, 64, dtype=torch.float64), torch.tensor([1])
    found = lrlib.coordinate_check(make, [4, 8, 32], x, y, steps=1, seeds=[0])
    np.testing.assert_allclose(found.change[1, :, 0], 0.001 * 8 * np.array([4, 8, 32]), rtol=1e-6)
    assert found.change[0].max() == 0 and np.isnan(found.exponents["0"])
    assert found.worst == found.exponents["1"] == pytest.approx(1, abs=1e-6)


def test_depths_share_their_first_layers():
    def make(depth):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), *(nn.Linear(8, 8) for _ in range(depth)))
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    data = lrlib.digits()
    for depths in ([2, 4], [4, 2]):
        assert lrlib.coordinate_check(make, depths, data.x_train[:8], data.y_train[:8] % 8).names == ("1", "2", "3")


def test_random_layers_and_statistics_do_not_disturb_the_check():
    def make(width):
        model = nn.Sequential(
            nn.Flatten(), nn.Dropout(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.Linear(width, 10)
        )
        return model, torch.optim.SGD(model.parameters(), lr=1e-12)

    data, state = lrlib.digits(), torch.get_rng_state()
    found = lrlib.coordinate_check(make, [8, 16], data.x_train[:32], data.y_train[:32], seeds=[3])
    assert found.change.max() < 1e-6 < found.size.min()
    assert torch.equal(state, torch.get_rng_state())


def test_of_a_recurrent_layer_the_outputs_are_checked():
    class Recurrent(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layer, self.head = nn.LSTM(8, width, batch_first=True), nn.Linear(width, 10)

        def forward(self, x):
            return self.head(self.layer(x.view(-1, 8, 8))[0][:, -1])

    def make(width):
        model = Recurrent(width)
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    data = lrlib.digits()
    check = lrlib.coordinate_check(make, [4, 8], data.x_train[:20], data.y_train[:20], seeds=[0])
    assert check.names == ("layer", "head") and (check.change > 0).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"widths": [8]}, "at least 2"),
        ({"widths": [8, 8]}, "different"),
        ({"steps": 0}, "steps"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_bad_checks_are_refused(changed, message):
    data = lrlib.digits()
    with pytest.raises(ValueError, match=message):
        lrlib.coordinate_check(
            lambda w: None, **{"widths": [4, 8], "x": data.x_train[:2], "y": data.y_train[:2], **changed}
        )


def test_the_coordinate_check_sees_the_layers_of_a_transformers_fast_path():
    def make(width):
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True)
        model = nn.Sequential(nn.Linear(6, width), layer, nn.Linear(width, 3)).eval()
        return model, torch.optim.SGD(model.parameters(), lr=0.01)

    x, y = torch.randn(4, 5, 6), torch.randn(4, 5, 3)
    found = lrlib.coordinate_check(make, [8, 16], x, y, loss=F.mse_loss)
    assert {"0", "1.norm1", "1.linear1", "1.linear2", "1.norm2", "2"} <= set(found.names)


@pytest.mark.parametrize("rule", [lrlib.Adam(), lrlib.AdamW(), lrlib.Lion(), lrlib.Muon()], ids=str)
def test_the_groups_of_a_scaled_rule_hold_only_settings_of_its_optimizer(rule):
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = lrlib.PerParameter(rule, {"lr": [0.5]}).optimizer([weight], lr=0.1)
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert not [name for name in optimizer.param_groups[0] if "[" in name]


@pytest.mark.parametrize(
    ("rule", "scales"),
    [
        (lrlib.ScheduleFreeAdamW(), {"lr": [1.0]}),
        (lrlib.PerParameter(lrlib.Adam(), {"lr": [1.0]}), {"lr": [1.0]}),
        (lrlib.SGD(momentum=0.9), {"momentum": [1.2]}),
    ],
)
def test_what_a_scaled_rule_cannot_do_is_refused(rule, scales):
    with pytest.raises(ValueError, match=r"rule=|momentum="):
        lrlib.PerParameter(rule, scales)


def test_scaled_betas_reach_the_optimizer():
    def loss(method):
        with lrlib.seeded(0):
            model = lrlib.mlp(64, 16, 10).double()
        made = method if isinstance(method, lrlib.Rule) else method(model)
        data = lrlib.digits()
        return lrlib.train(model, (data.x_train.double(), data.y_train), 0.01, steps=20, optimizer=made).loss

    rule = lrlib.PerParameter(lrlib.Adam(), {"betas[0]": [0.5] * 4})
    expected = loss(lrlib.Adam(betas=(0.45, 0.999)))
    assert loss(rule) == pytest.approx(expected, rel=1e-9)
    assert loss(lambda model: rule.optimizer(model.parameters(), lr=0.01)) == pytest.approx(expected, rel=1e-9)


def test_a_base_that_is_wider_is_refused():
    def made(width, last=10):
        return nn.Sequential(nn.Linear(64, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, last))

    for use in (lrlib.mup_init_, lrlib.mup_rates):
        with pytest.raises(ValueError, match=r"base: '0.weight' has shape \(128, 64\), must be no wider"):
            use(made(32), made(128))


def test_a_check_whose_outputs_overflow_is_as_bad_as_can_be():
    data = lrlib.digits()

    def make(width):
        model = lrlib.mlp(64, width, 10)
        return model, torch.optim.SGD(model.parameters(), lr=1e20)

    check = lrlib.coordinate_check(make, [8, 32], data.x_train[:64], data.y_train[:64], steps=2, seeds=[0])
    assert check.worst == np.inf


def test_a_hidden_parameter_has_its_outputs_first():
    model, base = (nn.Bilinear(*sizes, bias=False) for sizes in ((8, 3, 4), (2, 3, 2)))
    found = [lrlib.mup_rates(model, base, optimizer=o, kinds={"weight": "hidden"})["weight"] for o in ("adam", "sgd")]
    assert found == [0.25, 0.5]


def test_each_update_of_the_check_has_a_gradient_of_its_own():
    def make(width):
        model = nn.Linear(3, width).double()
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    x, y = torch.ones(4, 3, dtype=torch.float64), torch.zeros(4)
    one, three = (
        lrlib.coordinate_check(make, [2, 4], x, y, steps=steps, seeds=[0], loss=lambda z, y: z.mean()).change
        for steps in (1, 3)
    )
    np.testing.assert_allclose(three, 3 * one, rtol=1e-9)


def test_a_layer_that_learns_ever_less_is_the_worst_too():
    change = np.array([[1.0, 2.0, 4.0], [1.0, 0.25, 0.0625]])[:, :, None]
    found = lrlib.CoordinateCheck(("0", "1"), (1, 4, 16), np.ones_like(change), change)
    assert found.exponents == pytest.approx({"0": 0.5, "1": -1.0}) and found.worst == pytest.approx(1.0)


class WithASpare(nn.Module):
    def __init__(self):
        super().__init__()
        self.spare, self.used = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.used(x)


def test_factors_stay_with_their_parameters_where_the_loss_does_not_use_all():
    x, y = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    moved = []
    for rule, rate in ((lrlib.PerParameter(lrlib.SGD(), {"lr": [9.0, 9.0, 2.0, 0.5]}), 0.1), (lrlib.SGD(), 0.1)):
        with lrlib.seeded(0):
            model = WithASpare()
        before = [p.detach().clone() for p in model.parameters()]
        lrlib.train(model, (x, y), rate, steps=1, batch_size=20, optimizer=rule)
        moved.append([(p - old).detach() for p, old in zip(model.parameters(), before, strict=True)])
    for mine, plain, factor in zip(*moved, (1, 1, 2.0, 0.5), strict=True):
        torch.testing.assert_close(mine, factor * plain)
    assert not moved[0][0].any() and moved[0][2].any()
    with pytest.raises(ValueError, match=r"has 2 factors, must be 4, one a parameter"):
        few = lrlib.PerParameter(lrlib.SGD(), {"lr": [2.0, 0.5]})
        lrlib.train(WithASpare(), (x, y), 0.1, steps=1, batch_size=20, optimizer=few)


@pytest.mark.parametrize("momentum", [0.9, [0.5, 0.9], lrlib.constant(0.9)])
def test_a_setting_that_a_factor_puts_out_of_its_range_is_refused(momentum):
    with pytest.raises(ValueError, match=r"momentum.*1\.08.*must be in \[0, 1\)"):
        rule = lrlib.PerParameter(lrlib.SGD(momentum=momentum), {"momentum": [1.0, 1.2]})
        lrlib.train(
            nn.Linear(4, 3), (torch.ones(4, 4), torch.arange(4) % 3), 0.1, steps=1, batch_size=4, optimizer=rule
        )


def test_a_rule_that_waits_for_the_host_is_not_captured_with_factors_either():
    class Waits(lrlib.SGD):
        capturable = False

    assert not lrlib.PerParameter(Waits(), {"lr": [1.0]}).capturable
    assert lrlib.PerParameter(lrlib.SGD(), {"lr": [1.0]}).capturable


def test_layers_whose_outputs_are_changed_in_place_are_measured_before_that():
    def make(inplace):
        def made(width):
            model = nn.Sequential(nn.Linear(3, width), nn.ReLU(inplace), nn.Linear(width, 2))
            return model, torch.optim.SGD(model.parameters(), lr=0.1)

        return made

    x, y = torch.linspace(-1, 1, 12).view(4, 3), torch.zeros(4, dtype=torch.long)
    plain, inplace = (lrlib.coordinate_check(make(kind), [4, 8], x, y, seeds=[0]) for kind in (False, True))
    np.testing.assert_array_equal(plain.size, inplace.size)


def test_looks_of_the_check_are_no_batches_of_a_norm():
    norms = []

    def make(width):
        norms.append(nn.BatchNorm1d(width))
        model = nn.Sequential(nn.Linear(3, width), norms[-1])
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    x = torch.linspace(-1, 1, 12).view(4, 3)
    lrlib.coordinate_check(make, [4, 8], x, torch.zeros(4, dtype=torch.long), steps=3, seeds=[0])
    assert [int(norm.num_batches_tracked) for norm in norms] == [3, 3]
