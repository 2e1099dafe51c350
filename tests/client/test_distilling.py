"""A teacher answers what the student is asked, in any task's loss, and pulls it towards what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedprune.errors import TaskError
from fedprune.mask import Mask
from fedprune.task import Shard, load_task
from fedprune.torch import Arrays, build_model, signature, to_arrays
from fedprune.work import TrainWork
from fedprune_client.distilling import TEMPERATURE, Teacher, distance
from fedprune_client.training import Trainer

WriteTask = Callable[..., Path]


def open_trainer(path: Path) -> Trainer:
    task = load_task(path)
    model = build_model(task, seed=1)
    return Trainer.load(task, model, signature(model), Shard(index=0, count=2, path=path.parent, seed=1), 0.0)


def weights_of(trainer: Trainer, seed: int) -> Arrays:
    return to_arrays(build_model(trainer.task, seed=seed), trainer.schema)


def trained(trainer: Trainer, share: float, teacher: Arrays | None) -> Arrays:
    work = TrainWork(epochs=20, learning_rate=0.1, distill=share)
    done = trainer.train(
        weights_of(trainer, 1),
        Mask.full(trainer.schema),
        work,
        on_step=lambda step, steps: None,
        stop=lambda: False,
        teacher=teacher,
    )
    assert done is not None
    assert not trainer.model._forward_hooks
    return done.weights


def answers(trainer: Trainer, weights: Arrays) -> Tensor:
    teacher = Teacher.of(trainer.model, trainer.schema, weights, share=0.5, party="a test")
    torch.manual_seed(5)
    with torch.no_grad():
        found: Tensor = teacher.model(torch.randn(64, 4))
    return found


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 2), (2, 7, 3)])
def test_the_distance_is_that_of_the_two_distributions(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    student, teacher = torch.randn(shape), torch.randn(shape)
    classes = 2 if len(shape) == 3 else 1
    p = torch.softmax(teacher.double() / TEMPERATURE, dim=classes)
    q = torch.softmax(student.double() / TEMPERATURE, dim=classes)
    expected = TEMPERATURE**2 * (p * (p / q).log()).sum(dim=classes).mean()
    assert distance(student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)
    assert distance(teacher, teacher).item() == pytest.approx(0.0, abs=1e-6)


def test_a_student_comes_nearer_to_its_teacher_than_by_labels_alone(write_task: WriteTask) -> None:
    trainer = open_trainer(write_task())
    teacher = weights_of(trainer, 9)
    wanted = answers(trainer, teacher)
    apart = {
        share: distance(answers(trainer, trained(trainer, share, teacher)), wanted).item() for share in (0.0, 0.5, 0.95)
    }
    assert apart[0.95] < apart[0.5] < apart[0.0]


def test_without_a_teacher_or_a_share_the_bits_are_those_of_training(write_task: WriteTask) -> None:
    trainer = open_trainer(write_task())
    plain = trained(trainer, 0.0, None)
    for share, teacher in ((0.5, None), (0.0, weights_of(trainer, 9))):
        again = trained(trainer, share, teacher)
        assert all(np.array_equal(plain[name], again[name]) for name in plain)


def test_the_teacher_does_not_learn_and_the_student_is_not_moved_by_it(write_task: WriteTask) -> None:
    trainer = open_trainer(write_task())
    weights = weights_of(trainer, 9)
    teacher = Teacher.of(trainer.model, trainer.schema, weights, share=0.5, party="a test")
    before = to_arrays(trainer.model, trainer.schema)
    batch = torch.randn(8, 4)
    with teacher.beside(trainer.model):
        trainer.model(batch)
        blended = teacher.blend(torch.tensor(2.0))
    assert blended.item() == pytest.approx(1.0 + 0.5 * distance(trainer.model(batch), teacher.model(batch)).item())
    assert all(np.array_equal(before[n], a) for n, a in to_arrays(trainer.model, trainer.schema).items())
    assert all(np.array_equal(weights[n], a) for n, a in to_arrays(teacher.model, trainer.schema).items())


def test_what_cannot_be_distilled_is_told() -> None:
    pair = nn.Module()
    teacher = Teacher(model=pair, share=0.5, party="task.py")
    with pytest.raises(TaskError, match="does not call the model"):
        teacher.blend(torch.tensor(1.0))
    for output in ((torch.zeros(2, 2),), torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64)):
        with pytest.raises(TaskError, match="cannot be distilled"):
            teacher._answer(pair, (), {}, output)
