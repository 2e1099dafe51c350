"""What clients sent in a round can be read by others, where the run keeps it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import load_npz

from fedprune.codec import Limits
from fedprune.errors import LocalError, StoreError
from fedprune.schema_file import read_schema
from fedprune_lab import export_csr
from fedprune_server import history
from fedprune_server.store.looking import Look
from fedprune_server.versions import read_version

from .federation import Federation, run_file, task_file

LAYERS = ("0.weight", "2.weight", "4.weight")


async def folder_of(tmp_path: Path, *overrides: str) -> Path:
    federation = Federation(tmp_path, task_file(tmp_path), [run_file("training.held_out=0", *overrides)])
    assert await federation.run()
    return tmp_path / "runs" / "run"


def model_after(folder: Path, round_: int) -> dict[str, np.ndarray]:
    schema = read_schema(folder)
    with Look(folder) as look:
        (run,) = look.runs()
        version = next(v for n in range(round_ + 1) if (v := look.version(run.run_id, n)).round == round_)
        return dict(read_version(version, look.blob, schema, Limits.of_update(schema)).arrays)


async def test_the_weights_that_were_sent_average_to_the_model_that_followed(tmp_path: Path) -> None:
    folder = await folder_of(tmp_path, "run.keep_updates=true")
    told = export_csr.run_round(folder, 2, tmp_path / "csr")
    assert [entry["identity"] for entry in told] == ["a", "b", "c"]
    assert {entry["values"] for entry in told} == {"weights"}
    after = model_after(folder, 2)
    for layer in LAYERS:
        sent = [load_npz(f"{entry['folder']}/{layer}.npz").toarray() for entry in told]
        mean = np.average(sent, axis=0, weights=[float(str(entry["examples"])) for entry in told])
        assert np.allclose(mean, after[layer], atol=1e-6)
    assert not np.allclose(sent[0], after[LAYERS[-1]], atol=1e-3), "clients that send the model show nothing"
    before = model_after(folder, 1)
    for update in history.sent(folder, 2):
        assert all((update.base[layer] == before[layer]).all() for layer in LAYERS)


async def test_compressed_updates_are_differences_on_the_mask(tmp_path: Path) -> None:
    folder = await folder_of(
        tmp_path,
        "run.keep_updates=true",
        "compression.up=int8",
        "pruning.density=0.5",
        "pruning.start=0",
        "pruning.end=0.7",
        "pruning.every=1",
    )
    told = export_csr.run_round(folder, 3, tmp_path / "csr")
    assert {entry["values"] for entry in told} == {"differences"}
    before = model_after(folder, 2)["0.weight"]
    sent = load_npz(f"{told[0]['folder']}/0.weight.npz").toarray()
    assert 0 < np.abs(sent).max() < np.abs(before).max()
    assert not sent[before == 0].any()


async def test_a_run_that_keeps_nothing_says_what_to_do(tmp_path: Path) -> None:
    folder = await folder_of(tmp_path)
    with pytest.raises(StoreError, match="keep_updates = true"):
        export_csr.run_round(folder, 1, tmp_path / "csr")
    with pytest.raises(LocalError, match="no update counted"):
        export_csr.run_round(folder, 9, tmp_path / "csr")
