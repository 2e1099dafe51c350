"""Flower's part of bench/peer.py, run by a Python that has Flower: its gRPC server, or one of its clients.

The model, the data and the one step a round are those of bench/tasks/mlp50k.py. The server prints the overhead of each
round but the first, in seconds, as JSON: from one round's beginning to the next one's, less the slowest client's own
time of its step.

    python flower.py server PORT CLIENTS ROUNDS
    python flower.py client PORT CLIENTS NUMBER DIGITS.npz
    python flower.py light PORT CLIENTS NUMBER DIGITS.npz       sends back what it gets
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import flwr
import numpy as np

STEP_S = "step_s"
SHAPES = ((256, 64), (256,), (128, 256), (128,), (10, 128), (10,))


def serve(address: str, clients: int, rounds: int) -> None:
    began_s: list[float] = []
    steps_s: list[float] = []

    class Timed(flwr.server.strategy.FedAvg):  # type: ignore[misc]  # Flower has no types here
        def configure_fit(self, *what: Any, **more: Any) -> Any:
            began_s.append(time.perf_counter())
            return super().configure_fit(*what, **more)

        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            if failures:
                raise SystemExit(f"a client of Flower failed: {failures[0]}")
            steps_s.append(max(result.metrics[STEP_S] for _, result in results))
            return super().aggregate_fit(server_round, results, failures)

    strategy = Timed(min_fit_clients=clients, min_available_clients=clients, fraction_evaluate=0.0)
    flwr.server.start_server(
        server_address=address, config=flwr.server.ServerConfig(num_rounds=rounds), strategy=strategy
    )
    ends = zip(began_s[1:], began_s[2:], steps_s[1:], strict=False)
    print(json.dumps([end - start - step for start, end, step in ends]))


def light_client() -> Any:
    class Echo(flwr.client.NumPyClient):  # type: ignore[misc]
        def get_parameters(self, config: Any) -> list[Any]:
            return [np.zeros(shape, np.float32) for shape in SHAPES]

        def fit(self, parameters: list[Any], config: Any) -> tuple[list[Any], int, dict[str, float]]:
            return parameters, 1, {STEP_S: 0.0}

    return Echo()


def training_client(digits: Path, clients: int, number: int) -> Any:
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(1)
    with np.load(digits) as arrays:
        images = torch.from_numpy(arrays["train_images"]).float()[number::clients] / 16
        labels = torch.from_numpy(arrays["train_labels"]).long()[number::clients]
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )

    class Trained(flwr.client.NumPyClient):  # type: ignore[misc]
        def get_parameters(self, config: Any) -> list[Any]:
            return [weight.detach().numpy() for weight in model.parameters()]

        def fit(self, parameters: list[Any], config: Any) -> tuple[list[Any], int, dict[str, float]]:
            began_s = time.perf_counter()
            with torch.no_grad():
                for weight, array in zip(model.parameters(), parameters, strict=True):
                    weight.copy_(torch.from_numpy(array))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            batch = torch.randint(len(images), (32,))
            cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            model.zero_grad()
            return self.get_parameters(config), len(batch), {STEP_S: time.perf_counter() - began_s}

    return Trained()


def main() -> None:
    role, port, clients, *rest = sys.argv[1:]
    address = f"127.0.0.1:{port}"
    if role == "server":
        serve(address, int(clients), int(rest[0]))
        return
    own = light_client() if role == "light" else training_client(Path(rest[1]), int(clients), int(rest[0]))
    flwr.client.start_client(server_address=address, client=own.to_client())


if __name__ == "__main__":
    main()
