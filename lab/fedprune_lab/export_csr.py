"""`fedprune export --csr`: models and updates as CSR files that scipy and others open.

One file for each tensor, in the layout of `scipy.sparse.save_npz`, written without scipy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from fedprune.codec import UpdateReader
from fedprune.csr import CsrDelta
from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.tensor import Role, TensorSpec
from fedprune_server.history import sent


def run(model: Path, out: Path) -> list[CsrDelta]:
    """Write the matrices and kernels of a safetensors file (or of a run's folder) to `out`, one file each.

    Raises `LocalError` when there is no model, or when none of its tensors has two axes.
    """
    path = model / "model.safetensors" if model.is_dir() else model
    if not path.is_file():
        raise LocalError("there is no model", seen=path, next_step="Give a run's folder or a .safetensors file")
    deltas = [CsrDelta.of_dense(_spec(name, array), array) for name, array in load_file(path).items() if array.ndim > 1]
    if not deltas:
        raise LocalError("the model has no tensor with two axes", seen=path)
    write(deltas, out)
    return deltas


def run_round(folder: Path, round_: int, out: Path) -> list[dict[str, object]]:
    """Write the matrices of what each client sent in a round to `out`/client-N, and tell of each client what there is.

    Raises as `fedprune_server.history.sent` does.
    """
    told: list[dict[str, object]] = []
    for update in sent(folder, round_):
        place = out / f"client-{update.client}"
        deltas = list(of_update(update.reader, update.mask))
        write(deltas, place)
        told.append(
            {
                "client": update.client,
                "identity": update.identity,
                "examples": update.examples,
                "values": "differences" if update.is_difference else "weights",
                "folder": str(place),
                "matrices": len(deltas),
            }
        )
    return told


def line(told: Mapping[str, object]) -> str:
    """What was written of one client, for a terminal."""
    return "client {client} ({identity}): {values} of {matrices} matrices, {examples} examples, in {folder}".format(
        **told
    )


def of_update(reader: UpdateReader, mask: Mask | None) -> Iterator[CsrDelta]:
    """The matrices and kernels of what a client sent, as they are read: the values where they are alive, or were chosen."""
    for spec, packed in reader:
        if len(spec.shape) > 1:
            places = packed.indices
            if places is None:
                alive = mask if spec.role is Role.PRUNABLE else None
                places = np.arange(spec.size) if alive is None else alive.indices(spec.name)
            yield CsrDelta.of_places(spec, places, packed.values)


def write(deltas: Iterable[CsrDelta], out: Path) -> None:
    """One `NAME.npz` each, as `scipy.sparse.load_npz` reads it."""
    out.mkdir(parents=True, exist_ok=True)
    for delta in deltas:
        np.savez(
            out / f"{delta.name}.npz",
            format=np.array(b"csr"),
            shape=np.array(delta.shape),
            indptr=delta.indptr,
            indices=delta.indices,
            data=delta.values,
        )


def to_torch(delta: CsrDelta) -> torch.Tensor:
    """A sparse CSR tensor over the same memory."""
    parts = [torch.from_numpy(part) for part in (delta.indptr, delta.indices, delta.values)]
    return torch.sparse_csr_tensor(parts[0], parts[1], parts[2], size=delta.shape, check_invariants=False)


def of_torch(name: str, tensor: torch.Tensor) -> CsrDelta:
    """From a sparse CSR tensor on the CPU, its memory shared; columns must be sorted and unique."""
    if tensor.layout is not torch.sparse_csr or tensor.dim() != 2:
        raise LocalError(f"tensor {name!r} is no CSR matrix", seen=f"{tensor.layout} {list(tensor.shape)}")
    return CsrDelta(
        name=name,
        shape=(tensor.shape[0], tensor.shape[1]),
        indptr=tensor.crow_indices().numpy(),
        indices=tensor.col_indices().numpy(),
        values=tensor.values().numpy(),
    )


def _spec(name: str, array: np.ndarray) -> TensorSpec:
    return TensorSpec(name=name, shape=array.shape)
