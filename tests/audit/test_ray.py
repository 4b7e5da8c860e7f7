"""Audits on a real local Ray with two workers: the numbers of one process, whatever dies meanwhile."""

import os
import signal

import pytest
from PIL import Image

from cryptomnesia.audit import engine_ray
from cryptomnesia.audit.images import ImageJob
from cryptomnesia.audit.inputs import Images, Prompts
from cryptomnesia.audit.prompts import PromptJob
from cryptomnesia.audit.rows import Row
from cryptomnesia.audit.run import Audit, open_engine
from cryptomnesia.errors import InputError, NotApplicable

from ..helpers import auditing
from ..helpers.auditing import Opener, audit, equal, log, results

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two slots on loopback, for all tests of this file."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # as the tests; at 15, a busy machine starves them
    here = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level="ERROR", **here)
    ray.cloudpickle.register_pickle_by_value(auditing)  # workers have no tests on their path
    yield
    ray.shutdown()


def pids(engine):
    """Of the processes that hold the models."""
    return ray.get([actor.__ray_call__.remote(lambda worker: os.getpid()) for actor in engine.actors])


def test_ray_gives_the_numbers_of_one_process_although_a_worker_is_killed(tmp_path):
    source = Prompts(log(tmp_path, 600, {3: "not a number"}))
    whole = audit(source, tmp_path / "local", batch=50)
    run = Audit(source, PromptJob(Opener(seconds=0.05)), tmp_path / "ray")
    killed = False
    with open_engine("ray", run.job, 2) as engine:
        first = pids(engine)
        assert len(set(first)) == 2
        for done in run.steps(engine, 16):
            if done > 100 and not killed:
                os.kill(first[0], signal.SIGKILL)
                killed = True
    assert killed and run.complete
    found = results(tmp_path / "ray")
    assert [row["row"] for row in found] == [row["row"] for row in whole]
    assert equal(whole, found, 1e-5)
    assert results(tmp_path / "ray", "rejects") == results(tmp_path / "local", "rejects")


def test_a_row_that_kills_three_workers_is_rejected_and_the_rest_goes_on(tmp_path):
    source = Prompts(log(tmp_path, 10, {5: "deadly"}))
    found = audit(source, tmp_path / "ray", engine="ray", workers=2, batch=2)
    assert [row["row"] for row in found] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    (reject,) = results(tmp_path / "ray", "rejects")
    assert (reject["row"], reject["reason"], reject["excerpt"]) == (5, "3 workers died on it", "deadly")


def test_a_model_that_is_replaced_during_the_run_stops_it(tmp_path):
    weights = tmp_path / "weights.txt"
    weights.write_text("0")
    source = Prompts(log(tmp_path, 300))
    run = Audit(source, PromptJob(Opener(str(weights), seconds=0.2)), tmp_path / "ray")
    with pytest.raises(InputError, match="replaced during the run"), open_engine("ray", run.job, 2) as engine:
        for number, _ in enumerate(run.steps(engine, 4)):
            if number == 2:
                weights.write_text("1")
                for worker in pids(engine):  # both: the other could finish before the first is back
                    os.kill(worker, signal.SIGKILL)
    assert run.kept < 300


def test_workers_that_take_long_to_restart_are_waited_for(monkeypatch):
    """As long as they only restart: that is no death."""
    left, get = [100], engine_ray.RayEngine._get

    def late(engine, reference):
        if left[0]:
            left[0] -= 1
            raise ray.exceptions.ActorUnavailableError("the actor is restarting", None)
        return get(engine, reference)

    monkeypatch.setattr(engine_ray, "PAUSE", 0.001)
    with open_engine("ray", PromptJob(Opener()), 1) as engine:
        monkeypatch.setattr(engine_ray.RayEngine, "_get", late)
        found = list(engine.map([[Row(0, "fine")]]))
        assert sum(len(done.records) for done in found) == 1 and not left[0]
        left[0] = 1000
        monkeypatch.setattr(engine_ray, "LONGEST_RESTART", 0.5)
        with pytest.raises(InputError, match="restarting"):
            list(engine.map([[Row(0, "fine")]]))


def test_errors_of_workers_come_through_as_they_are(tmp_path):
    def fail():
        raise NotApplicable("this model is odd")

    with pytest.raises(NotApplicable, match=r"^this model is odd$"), open_engine("ray", PromptJob(fail), 1):
        pass


def test_images_go_over_ray_too(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(20):
        Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / "images" / f"{i:02}.png")
    (tmp_path / "images" / "07.png").write_bytes(b"no image")
    job = ImageJob(tmp_path / "images")
    run = Audit(Images(job.folder), job, tmp_path / "out")
    with open_engine("ray", job, 2) as engine:
        assert list(run.steps(engine, 4))[-1] == 20
    assert [row["row"] for row in results(tmp_path / "out")] == [i for i in range(20) if i != 7]


def test_more_workers_than_slots_are_refused():
    with pytest.raises(InputError, match="room for 2 workers, one per CPU, not for 3"):  # noqa: SIM117
        with open_engine("ray", PromptJob(Opener()), 3):
            pass


def test_the_first_worker_tries_batches_and_dying_at_that_stops_nothing():
    with open_engine("ray", PromptJob(Opener(seconds=0.02)), 1) as engine:
        assert engine.best_batch([Row(0, "fine")], 4) in (1, 2, 4)  # by its clock; see test_audit
        assert engine.best_batch([Row(0, "deadly")], 64) == 8
        (done,) = engine.map([[Row(0, "fine")]])
        assert len(done.records) == 1
