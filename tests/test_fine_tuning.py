"""Rates from layer to layer, and LoRA."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrlib


def network(seed=0):
    with lrlib.seeded(seed):
        return lrlib.mlp(64, 16, 16, 10)


def test_layerwise_rates_fall_to_the_input_and_hold_every_parameter_once():
    net = network()
    groups = lrlib.layerwise_groups(net, lr=0.1, decay=0.25)
    assert [group["lr"] for group in groups] == pytest.approx([0.1 / 16, 0.1 / 4, 0.1])
    assert [id(p) for group in groups for p in group["params"]] == [id(p) for p in net.parameters()]
    net[1].requires_grad_(False)
    assert [group["lr"] for group in lrlib.layerwise_groups(net, 0.1, 0.25)] == pytest.approx([0.1 / 4, 0.1])


def test_layers_of_a_transformer_are_given_by_hand():
    net = lrlib.char_transformer(depth=2)
    net.place.requires_grad_(False)
    layers = [net.embedding, *net.blocks, [net.norm, net.head]]
    groups = lrlib.layerwise_groups(net, 1.0, 0.5, layers)
    assert [group["lr"] for group in groups] == [0.125, 0.25, 0.5, 1.0]
    assert sum(p.numel() for g in groups for p in g["params"]) == lrlib.parameter_count(net)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"lr": 0.0}, ValueError, "lr=0.0"),
        ({"decay": -1.0}, ValueError, "decay=-1.0"),
        ({"layers": [0, 1]}, ValueError, r"leave out '5.weight'"),
        ({"layers": [0, 0, 1, 2]}, ValueError, r"layers\[1\].*'1.weight', which is in two layers"),
        ({"layers": [[0, 1], 2, 3]}, ValueError, "not of the model"),
        ({"layers": ["1"]}, TypeError, r"layers\[0\]: is a str"),
    ],
)
def test_what_layerwise_groups_refuses(arguments, error, match):
    net = network()
    known = [net[1], net[3], net[5], nn.Linear(2, 2)]
    pick = lambda k: [known[i] for i in k] if isinstance(k, list) else known[k] if isinstance(k, int) else k  # noqa: E731
    if "layers" in arguments:
        arguments = {"layers": [pick(k) for k in arguments["layers"]]}
    with pytest.raises(error, match=match):
        lrlib.layerwise_groups(net, **({"lr": 0.1, "decay": 0.5} | arguments))
    with pytest.raises(ValueError, match="requires a gradient"):
        lrlib.layerwise_groups(nn.ReLU(), 0.1, 0.5)


def test_lora_starts_at_the_model_and_leaves_it_alone():
    net, x = network(), torch.randn(5, 1, 8, 8)
    tuned = lrlib.lora(net, rank=3, alpha=6)
    assert torch.equal(tuned(x), net(x)) and tuned[1].scale == 2.0
    assert all(p.requires_grad for p in net.parameters())
    assert [n for n, p in tuned.named_parameters() if p.requires_grad] == [f"{k}.{M}" for k in (1, 3, 5) for M in "AB"]
    before = [p.clone() for p in net.parameters()]
    lrlib.train(tuned, lrlib.digits(), 0.01, steps=5, optimizer=lrlib.Adam())
    assert all(torch.equal(p, q) for p, q in zip(before, net.parameters(), strict=True))
    assert torch.equal(tuned[1].weight, net[1].weight) and tuned[1].B.abs().max() > 0


def test_lora_computes_its_formula_and_merges():
    layer = lrlib.LoRA(nn.Linear(6, 4), rank=2, alpha=10)
    with torch.no_grad():
        layer.B.normal_()
    merged = nn.Linear(6, 4)
    merged.load_state_dict({"weight": layer.weight + 5 * layer.B @ layer.A, "bias": layer.bias})
    x = torch.randn(7, 6)
    torch.testing.assert_close(layer(x), merged(x))


def test_first_step_of_adam_moves_b_alone_by_the_rate():
    net = lrlib.lora(network(), rank=2, alpha=8)
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    data = lrlib.digits()
    lrlib.train(net, data, 0.01, steps=1, optimizer=lrlib.Adam())
    for name, p in net.named_parameters():
        moved = (p.detach() - start[name]).abs()
        assert moved.max() == pytest.approx(0.01, rel=1e-3) if name.endswith("B") else moved.max() == 0


def test_a_stack_of_lora_trains_as_its_networks_do():
    data = lrlib.digits()
    nets = []
    for seed in range(3):
        with lrlib.seeded(seed):
            nets.append(lrlib.lora(network(seed), rank=2, alpha=8))
    stack = lrlib.Stack(nets)
    lrlib.train(stack, data, [0.01, 0.02, 0.03], steps=6, optimizer=lrlib.Adam(), seed=[0, 1, 2])
    for r, net in enumerate(nets):
        lrlib.train(net, data, 0.01 * (r + 1), steps=6, optimizer=lrlib.Adam(), seed=r)
        for name, p in net.named_parameters():
            torch.testing.assert_close(stack.replica(r)[name], p.detach(), rtol=1e-3, atol=1e-5)


def test_lora_keeps_ties_and_shared_layers_and_passes_over_what_it_does_not_know():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.head.weight, self.again = self.embedding.weight, self.head

        def forward(self, x):
            return self.again(self.embedding(x))

    net = lrlib.lora(Tied(), rank=1, alpha=1)
    assert net.head is net.again and net.head.weight is net.embedding.weight and net.head.bias is None
    assert net(torch.tensor([1, 2])).shape == (2, 9)
    attention = lrlib.lora(nn.TransformerEncoderLayer(8, 2, 16), rank=1, alpha=1)
    assert not isinstance(attention.self_attn.out_proj, lrlib.LoRA) and isinstance(attention.linear1, lrlib.LoRA)
    assert isinstance(lrlib.lora(nn.Linear(3, 2), 1, 1), lrlib.LoRA)


@pytest.mark.parametrize(
    ("model", "rank", "alpha", "error", "match"),
    [
        (nn.ReLU(), 1, 1.0, ValueError, "model: must have an nn.Linear"),
        (nn.Linear(2, 2), 0, 1.0, ValueError, "rank=0"),
        (nn.Linear(2, 2), 1.5, 1.0, TypeError, "rank=1.5"),
        (nn.Linear(2, 2), 1, 0.0, ValueError, "alpha=0.0"),
    ],
)
def test_what_lora_refuses(model, rank, alpha, error, match):
    with pytest.raises(error, match=match):
        lrlib.lora(model, rank, alpha)


def test_lora_is_of_a_plain_linear_layer():
    with pytest.raises(TypeError, match="layer: is a Conv2d"):
        lrlib.LoRA(nn.Conv2d(1, 1, 1), 1, 1.0)
    wide = lrlib.LoRA(nn.Linear(3, 2, dtype=torch.float64), rank=5, alpha=5.0)
    assert F.mse_loss(wide(torch.ones(1, 3, dtype=torch.float64)), torch.zeros(1, 2)).dtype == torch.float64


def test_lora_refuses_a_layer_whose_fast_path_passes_over_it():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    with pytest.raises(ValueError, match="model: layers.0 is an nn.TransformerEncoderLayer, .* batch_first=False"):
        lrlib.lora(nn.TransformerEncoder(layer, 1), rank=1, alpha=1)
    slow = lrlib.lora(nn.TransformerEncoderLayer(8, 2, 16), rank=1, alpha=1).eval()
    with torch.no_grad():
        x, before = torch.randn(5, 3, 8), slow(torch.ones(5, 3, 8))
        slow.linear1.B.fill_(1.0)
        assert not torch.allclose(slow(torch.ones(5, 3, 8)), before) and slow(x).isfinite().all()


def test_a_layer_whose_weight_is_computed_is_refused():
    with pytest.raises(ValueError, match="layer: has a weight that is computed"):
        lrlib.LoRA(nn.utils.spectral_norm(nn.Linear(4, 3)), rank=2, alpha=1.0)


def test_lora_of_a_model_in_evaluation_mode_is_in_that_mode():
    model = lrlib.lora(lrlib.mlp(64, 16, 10).eval(), rank=2, alpha=4)
    assert not any(module.training for module in model.modules()) and lrlib.Stack([model, model]).size == 2


def test_a_layer_with_hooks_is_refused_and_sizes_stay_to_be_read():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    adapted = lrlib.lora(model, 2, 4)
    assert (adapted[2].in_features, adapted[2].out_features) == (4, 3)
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(ValueError, match="layer: has hooks"):
        lrlib.lora(model, 2, 4)


def test_lora_draws_a_as_a_linear_layer_its_weights_and_freezes_the_rest():
    with lrlib.seeded(0):
        drawn = lrlib.LoRA(nn.Linear(400, 3), rank=50, alpha=1.0).A.abs().max().item()
    assert 0.99 / 20 < drawn <= 1 / 20
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8), nn.Linear(8, 10))
    tuned = lrlib.lora(net, rank=1, alpha=1)
    assert [n for n, p in tuned.named_parameters() if p.requires_grad] == ["1.A", "1.B", "3.A", "3.B"]


def test_a_layer_with_a_hook_on_its_gradients_is_refused():
    layer = nn.Linear(4, 3)
    layer.register_full_backward_hook(lambda module, inputs, outputs: None)
    with pytest.raises(ValueError, match="layer: has hooks"):
        lrlib.LoRA(layer, 2, 4)


def test_a_single_layer_of_lora_trains_a_and_b_alone():
    layer = lrlib.LoRA(nn.Linear(4, 3), rank=2, alpha=4)
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == ["A", "B"]


def test_a_layer_that_computes_something_else_is_refused():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(TypeError, match="layer: is a Doubled"):
        lrlib.LoRA(Doubled(4, 3), 2, 4)
