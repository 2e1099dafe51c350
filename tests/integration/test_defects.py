"""Defects seen in the code of others, each with the tests here that would catch it.

FedDST
| the decay of the exchange is multiplied by its amount twice | common/pruning/test_regrowth.py::test_the_share_starts_at_its_amount_not_at_its_square |
| growth picks among all weights, and zeroes live ones it picks | common/pruning/test_regrowth.py::test_a_vote_for_the_living_is_refused |
| density drifts below its target | common/pruning/test_regrowth.py::test_invariants |
| grown weights are averaged in before anybody has trained them | integration/test_defects.py::test_what_was_grown_is_trained_in_the_next_round |
| a client that exchanges by itself grows what is alive | client/test_scoring.py::test_a_client_that_readjusts_trains_first_and_exchanges_as_many_as_asked |
| the same, and nobody trains what it grew | integration/test_readjusting.py::test_clients_train_what_they_proposed_and_follow_by_steps |
| readjusting after the last step | common/pruning/test_regrowth.py::test_readjusting_after_the_last_step_is_refused |
| clients are drawn with replacement | integration/test_defects.py::test_no_client_is_drawn_twice_into_a_round |
| the memory of the old weights is overwritten | integration/test_approval.py::test_a_step_that_costs_too_much_is_undone_to_the_byte |
| a softmax inside the model, under a cross-entropy | integration/test_defects.py::test_the_models_we_ship_give_logits |
| a layer below its floor is skipped | common/pruning/test_selection.py::test_a_layer_that_was_below_its_floor_keeps_what_it_has |
Sub-FedAvg
| the gate looks at test data | server/test_controller.py::test_test_data_is_no_judge |
| the same, in a whole run | integration/test_approval.py::test_everyone_judges_also_where_few_train |
SpaFL
| the gradient passes where it should not | common/test_masking.py::test_alive_weights_move_exactly_as_the_masked_gradient_says |
| the result of a clip is thrown away | common/test_feedback.py::test_clipping_bounds_the_change_before_compression |
FedPruning
| random pruning raises | common/pruning/test_scores.py::test_random_pruning_works_and_keeps_a_random_part |
| structured pruning is an empty branch | integration/test_defects.py::test_a_method_that_is_not_there_is_refused_not_ignored |
| a saved mask cannot be loaded | common/codec/test_round_trip.py::test_mask_sets_come_back_with_their_version |
| the meaning of gamma is swapped | common/pruning/test_beliefs.py::test_gamma_is_the_part_of_the_aggregate |
| the global generator is seeded anew every round | integration/test_defects.py::test_a_run_leaves_the_global_generators_alone |
HeteroFL
| clients are averaged without weights | server/aggregation/test_fedavg.py::test_it_is_the_plain_average |
| statistics need all the data in one place | server/aggregation/test_fedavg.py::test_merged_statistics_are_those_of_the_union |
FedPM
| the bit rate is an estimate | integration/test_bytes.py::test_payload_and_socket_agree_in_every_round |
| masks travel as floats | integration/test_defects.py::test_a_mask_weighs_no_more_than_a_bit_for_each_weight |
STC
| a device is written into the code | integration/test_defects.py::test_no_device_is_written_into_the_code |
PruneFL
| a length is read in one go | common/test_framing.py::test_what_is_cut_is_put_together |
| threads are never joined | integration/test_defects.py::test_no_thread_is_left_after_a_run |
| a slow client blocks the round for ever | server/test_rounds.py::test_without_one_the_round_closes_with_what_is_there |
| messages are pickles | integration/test_defects.py::test_nothing_is_unpickled_or_evaluated |
"""

from __future__ import annotations

import ast
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedprune.codec import Limits, decode_mask_set, encode_mask_set
from fedprune.config import RunConfig
from fedprune.errors import ConfigError
from fedprune.mask import Mask
from fedprune.task import load_task
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune.torch import assign_roles, build_model, signature
from fedprune_server.course import Rules, choose_cohort

from .federation import Federation, run_file, task_file

TESTS = Path(__file__).resolve().parents[1]
ROWS = re.findall(r"^\| (.+?) \| (\S+)::(\w+) \|$", __doc__ or "", re.MULTILINE)
SOURCES = [p for room in ("common", "server", "client", "lab") for p in (TESTS.parent / room).rglob("*.py")]
REGROW = (
    "run.rounds=4",
    "pruning.density=0.4",
    "pruning.method='random'",
    "pruning.schedule='regrow'",
    "pruning.every=2",
    "pruning.start=0.0",
    "pruning.end=0.9",
    "pruning.floor=4",
)


def test_the_table_is_whole() -> None:
    assert len(ROWS) == sum(line.startswith("| ") for line in (__doc__ or "").splitlines()) == 29


@pytest.mark.parametrize(("defect", "file", "name"), ROWS)
def test_every_row_of_the_table_is_a_test(defect: str, file: str, name: str) -> None:
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


async def test_what_was_grown_is_trained_in_the_next_round(tmp_path: Path) -> None:
    task = task_file(tmp_path)
    federation = Federation(tmp_path, task, [run_file(*REGROW)])
    assert await federation.run()
    schema = assign_roles(signature(build_model(load_task(task))), [], [])
    before, after = (_mask(tmp_path, schema, version) for version in (1, 2))
    model = load_file(tmp_path / "runs" / "run" / "model.safetensors")
    # Exchanged after round 2, trained in rounds 3 and 4.
    grown = [model[name][after.alive[name] & ~before.alive[name]] for name in after.alive]
    assert sum(values.size for values in grown) > 0
    assert np.mean(np.concatenate(grown) != 0.0) > 0.9


def _mask(folder: Path, schema: Schema, version: int) -> Mask:
    data = (folder / "runs" / "run" / "masks" / f"v{version}.mask").read_bytes()
    return decode_mask_set(data, schema=schema, version=version, base=None, limits=Limits.of_mask(schema))


def test_no_client_is_drawn_twice_into_a_round() -> None:
    for round_ in range(1, 50):
        cohort, target = choose_cohort(Rules(rounds=50, share=0.4, over_select=0.5), round_, tuple(range(20)))
        assert len(set(cohort)) == len(cohort) == 12
        assert target == 8


def test_the_models_we_ship_give_logits() -> None:
    for file in sorted([*TESTS.parent.glob("examples/*/task.py"), TESTS.parent / "lab" / "fedprune_lab" / "digits.py"]):
        calls = {ast.unparse(n.func).lower() for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)}
        normalised = {call for call in calls if call.rpartition(".")[2] in ("softmax", "log_softmax", "logsoftmax")}
        assert not normalised, file


def test_a_method_that_is_not_there_is_refused_not_ignored() -> None:
    with pytest.raises(ConfigError, match=r"\[pruning\] method is not usable \(got 'structured'"):
        RunConfig.loads("[pruning]\nmethod = 'structured'")


async def test_a_run_leaves_the_global_generators_alone(tmp_path: Path) -> None:
    federation = Federation(tmp_path, task_file(tmp_path), [run_file(*REGROW, "pruning.regrow='posterior'")])
    numbers = np.random.get_state(legacy=True)
    assert isinstance(numbers, tuple)
    before = (torch.get_rng_state(), numbers[1].copy())
    assert await federation.run()
    after = np.random.get_state(legacy=True)
    assert isinstance(after, tuple)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(after[1], before[1])


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.9])
def test_a_mask_weighs_no_more_than_a_bit_for_each_weight(density: float) -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(200, 300), dtype="float32", role=Role.PRUNABLE),))
    bits = np.random.default_rng(1).random((200, 300)) < density
    assert len(encode_mask_set(Mask(schema=schema, version=1, alive={"w": bits}))) <= 200 * 300 / 8 + 100


def test_no_device_is_written_into_the_code() -> None:
    assert [str(path) for path in SOURCES if ".cuda(" in path.read_text()] == []


async def test_no_thread_is_left_after_a_run(tmp_path: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}
    federation = Federation(tmp_path, task_file(tmp_path), [run_file()])
    assert await federation.run()
    left = {thread.name for thread in threading.enumerate()} - before
    # The event loop's own pool ends with the loop; gRPC has none of ours.
    assert not {name for name in left if not name.startswith(("asyncio_", "Thread-", "Dummy-"))}


def test_nothing_is_unpickled_or_evaluated() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "dill", "marshal", "shelve"} & set(names), path
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("eval", "torch.load"), path
