"""Work on several processes: in order, each once, and all of it when a worker is killed."""

import os
import signal
from concurrent.futures.process import BrokenProcessPool

import joblib
import pytest

import lrlib.spread
from lrlib.spread import spread


def test_without_workers_the_calls_are_made_here_one_at_a_time_when_asked_for():
    calls = []
    results = spread(lambda item: calls.append(item) or os.getpid(), [1, 2, 3])
    assert calls == []
    assert next(results) == os.getpid() and calls == [1]
    assert list(results) == [os.getpid()] * 2 and calls == [1, 2, 3]


def test_nothing_to_do():
    with joblib.parallel_config(n_jobs=2):
        assert list(spread(abs, [])) == []


def test_threads_take_turns():
    running, most = [], []

    def work(item):
        running.append(item)
        most.append(len(running))
        running.remove(item)
        return list(spread(lambda x: x + item, [1]))  # inside of a call nothing is spread further

    with joblib.parallel_config(backend="threading", n_jobs=4):
        assert list(spread(work, range(50))) == [[item + 1] for item in range(50)]
    assert max(most) == 1


def test_an_error_of_a_call_is_raised():
    with joblib.parallel_config(backend="threading", n_jobs=2), pytest.raises(ZeroDivisionError):
        list(spread(lambda item: 1 / item, [1, 0]))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that kills")
@pytest.mark.filterwarnings("ignore")  # whatever joblib warns of that loses a worker
class TestProcesses:
    def test_results_come_in_order_and_a_killed_worker_loses_none(self, tmp_path):
        def work(item):
            with (tmp_path / "calls").open("a") as file:
                file.write(f"{item}\n")
            if item == 4 and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return item, os.getpid()

        with joblib.parallel_config(n_jobs=2):
            results = list(spread(work, range(12)))
        assert [item for item, _ in results] == list(range(12))
        assert os.getpid() not in {pid for _, pid in results}
        assert (tmp_path / "calls").read_text().split().count("4") == 2

    def test_an_item_that_always_kills_is_given_up(self, monkeypatch):
        monkeypatch.setattr(lrlib.spread, "FAILURES", 1)  # each costs new processes

        def work(item):
            if item == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return item

        with joblib.parallel_config(n_jobs=2), pytest.raises(BrokenProcessPool):
            list(spread(work, [0, 1]))
