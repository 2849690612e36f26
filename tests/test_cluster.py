"""A grid on a real Dask cluster of two worker processes, one of which is killed in the middle of its training."""

import logging
import os
import signal
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import lrlib
from lrlib import grid as grids

distributed = pytest.importorskip("distributed")

STEPS, MIDDLE = 30, 20
PATIENCE = 300.0  # seconds until a test that hangs gives up


def loss_that_waits_to_be_killed(folder: Path):
    """Cross entropy; the first worker that comes to the middle of a shard leaves its pid and waits."""
    home, calls = os.getpid(), []

    def loss(logits, labels):
        if os.getpid() != home:
            calls.append(1)
            if len(calls) == MIDDLE:
                claim()
        return F.cross_entropy(logits, labels)

    def claim():
        try:
            (folder / "claimed").mkdir()
        except FileExistsError:
            return
        (folder / "claimed" / "pid").write_text(str(os.getpid()))
        (folder / "claimed" / "pid").rename(folder / "victim")
        time.sleep(PATIENCE)

    return loss


def kill_the_victim(folder: Path, killed: list[int]) -> None:
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if (folder / "victim").exists():
            killed.append(int((folder / "victim").read_text()))
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.05)


@pytest.fixture
def client(tmp_path):
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=str(tmp_path / "dask"),
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.filterwarnings("ignore")  # whatever a cluster warns of that loses a worker
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that kills")
def test_a_killed_worker_costs_nothing_but_time(client, tmp_path, monkeypatch):
    monkeypatch.setattr(grids, "REPLICAS", 3)  # four shards, of one seed each
    monkeypatch.setattr(grids, "CACHE", 0)
    loss = loss_that_waits_to_be_killed(tmp_path)

    def grid():
        make, rates = (lambda seed: lrlib.mlp(64, 16, 10)), [0.01, 0.03, 0.1]
        return lrlib.train_grid(make, lrlib.digits, rates, range(4), steps=STEPS, loss=loss, way="stack")

    here = grid()
    pids = set(client.run(os.getpid).values())
    killed: list[int] = []
    killer = threading.Thread(target=kill_the_victim, args=(tmp_path, killed), daemon=True)
    killer.start()
    with joblib.parallel_config(backend="dask"):
        there = grid()
    killer.join()

    assert len(pids) == 2 and len(killed) == 1 and killed[0] in pids
    for name in ("loss", "test_loss", "test_accuracy", "diverged_at", "lr"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))
    for name in here.names:
        for seed in here.seeds:
            for key, value in here.state_dict(name, seed).items():
                assert torch.equal(there.state_dict(name, seed)[key], value)
