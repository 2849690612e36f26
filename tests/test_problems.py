"""Test problems: the quadratic is the one that its formula says, and a sweep is single runs side by side."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import lrlib
from lrlib import problems


@pytest.mark.parametrize("turned", [False, True])
def test_gradient_descent_follows_the_formula_of_the_quadratic(turned):
    problem = lrlib.quadratic_problem(turned, instances=2)
    for k, rate in enumerate((0.003, 0.015)):
        for instance, losses in enumerate(problem.sweep(lrlib.SGD(), [0.003, 0.015])[k]):
            x = problem.data[instance][0].double().numpy()
            values, vectors = np.linalg.eigh(x.T @ x)
            c = vectors.T @ problem.models[instance][1].weight.detach().double().numpy()[0]
            expected = (values * ((1 - rate * values) ** problem.steps * c) ** 2).sum() / 2
            assert losses == pytest.approx(expected, rel=1e-3)
            np.testing.assert_allclose(values, np.logspace(-1, 2, 20), rtol=1e-4)
            assert (np.abs(x.T @ x - np.diag(np.diag(x.T @ x))).max() > 1) == turned


def test_features_are_as_rare_as_said_and_used_once():
    problem = lrlib.sparse_problem(instances=4)
    share = torch.cat([x for x, _ in problem.data]).mean(0).numpy()
    np.testing.assert_allclose(share[[0, 1, 9]], [0.5, 0.25, 0.05], atol=0.02)
    assert len(problem.data[0][0]) == problem.steps * problem.batch_size
    assert not torch.equal(problem.test[0][0], problem.test[0][1])


def test_a_sweep_is_single_runs_side_by_side():
    problem = lrlib.network_problem(lambda: lrlib.mlp(64, 8, 10), lrlib.digits(), 20, 16, instances=2)
    rates, momenta = [0.01, 0.1], [0.0, 0.9]
    found = problem.sweep(lrlib.SGD(momentum=momenta * 2), rates)
    for instance in range(2):
        for k, (rate, momentum) in enumerate(zip(rates, momenta, strict=True)):
            with lrlib.seeded(instance):
                model = lrlib.mlp(64, 8, 10)
            rule = lrlib.SGD(momentum=momentum)
            lrlib.train(model, problem.data[0], rate, steps=20, batch_size=16, optimizer=rule, seed=instance)
            assert found[k, instance] == pytest.approx(lrlib.evaluate(model, *problem.data[0])[0], rel=1e-4)


def test_what_diverges_is_nan_and_counts_as_a_hundred():
    losses = lrlib.quadratic_problem(instances=2).sweep(lrlib.SGD(), [0.01, 1e9])
    assert np.isfinite(losses[0]).all() and np.isnan(losses[1]).all()
    assert lrlib.log_losses(losses)[1].tolist() == [2.0, 2.0]
    assert lrlib.log_losses([None, 1e-12, np.inf]).tolist() == [2.0, -9.0, 2.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lrlib.quadratic_problem(instances=0), "instances=0"),
        (lambda: lrlib.sparse_problem(instances=0), "instances=0"),
        (lambda: lrlib.network_problem(lambda: lrlib.mlp(64, 10), lrlib.digits(), 0, 16), "steps=0"),
        (lambda: lrlib.quadratic_problem(instances=1).sweep(lrlib.SGD(), []), "rates: is empty"),
        (lambda: lrlib.quadratic_problem(instances=1).sweep(lrlib.SGD(), [0.1, -0.1]), r"rates\[1\]=-0.1"),
        (lambda: lrlib.Problem([], [None], None, 1, 1, None), "data: has 1 pairs, must have 0"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_outputs_and_targets_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"targets: have shape \(4,\), must have \(4, 1\)"):
        lrlib.problems.half_squares(torch.ones(4, 1), torch.zeros(4))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_size": 99}])
def test_a_problem_of_no_updates_or_of_too_large_batches_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(lrlib.quadratic_problem(instances=2), **wrong)


def test_the_final_loss_is_that_of_evaluation_over_all_test_examples(monkeypatch):
    data = lrlib.digits()
    problem = lrlib.network_problem(
        lambda: lrlib.mlp(64, 8, 10, norm="batch"), data, steps=5, batch_size=16, instances=1
    )
    loss = problem.sweep(lrlib.SGD(), [0.1])
    model = copy.deepcopy(problem.models[0])
    lrlib.train(model, data, 0.1, steps=5, batch_size=16)
    assert loss.item() == pytest.approx(lrlib.evaluate(model, data.x_train, data.y_train)[0], rel=1e-4)
    monkeypatch.setattr(problems, "AT_A_TIME", 500)
    assert problem.sweep(lrlib.SGD(), [0.1]) == pytest.approx(loss, rel=1e-5)


def test_labels_come_from_weights_of_deviation_two():
    problem, found = lrlib.sparse_problem(instances=4), []
    for x, y in problem.data:
        fit = LogisticRegression(C=4.0).fit(x.double().numpy(), y[:, 0].numpy())  # the prior of deviation 2
        found += fit.coef_[0, :20].tolist()
    assert np.std(found) == pytest.approx(2, rel=0.2) and abs(np.mean(found)) < 0.5
