"""Several processes train as one: the same weights, losses and scores, with unequal shares of a step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import margins
import rank_job
from margins.training.checkpoint import read_checkpoint

HERE = Path(__file__).parent
SOURCE = str(Path(margins.__file__).parents[1])


def results_of(ranks: int, folder: Path) -> dict[str, Any]:
    out = folder / f"{ranks}.safetensors"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable] if ranks == 1 else launcher
    done = subprocess.run(
        [*command, str(HERE / "rank_job.py"), str(out)], capture_output=True, timeout=240, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([SOURCE, str(HERE)]), "OMP_NUM_THREADS": "1"},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return read_checkpoint(out)


@pytest.fixture(scope="module")
def by_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    return {ranks: results_of(ranks, folder) for ranks in (1, 2, 3)}


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("name", rank_job.JOBS)
def test_ranks_equal_one_process_over_twenty_steps(
    name: str, ranks: int, by_ranks: dict[int, dict[str, Any]]
):
    one, many = by_ranks[1][name], by_ranks[ranks][name]
    assert by_ranks[ranks]["ranks"] == ranks
    assert one["last step"] == 1  # fewer rows than ranks: some have none
    largest = max(float((one["weights"][k] - many["weights"][k]).abs().max()) for k in one["weights"])
    assert largest <= 1e-6
    assert one["losses"] == pytest.approx(many["losses"], abs=1e-6)
    assert one["select_scores"] == pytest.approx(many["select_scores"])
    assert torch.allclose(
        one["scores"], many["scores"], rtol=0, atol=1e-6 * float(one["scores"].abs().max() + 1)
    )
    assert one["scores"].shape[0] == 31


def test_the_jobs_are_not_the_same_training(by_ranks: dict[int, dict[str, Any]]):
    found = {tuple(by_ranks[1][name]["losses"]) for name in rank_job.JOBS}
    assert len(found) == len(rank_job.JOBS)
