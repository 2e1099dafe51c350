"""Both tables against each other, with no network between them: random delays, losses and absences, and still every
run ends, each update counts once and nobody trains what is sealed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.assignment import Assignment
from fedprune.tensor import Version
from fedprune.work import EvaluateWork, TrainWork
from fedprune_client import session
from fedprune_server import events, rounds
from fedprune_server.course import Course, Rules

News = session.Event


@dataclass
class Client:
    """One client's table and what its hands are doing."""

    index: int
    state: session.SessionState = field(default_factory=session.SessionState)
    connected: bool = False
    inbox: deque[News] = field(default_factory=deque)
    doing: session.Effect | None = None
    sealed: set[int] = field(default_factory=set)
    trained: list[int] = field(default_factory=list)


class World:
    """A coordinator's table, its clients, and a `chance` that decides what happens next."""

    def __init__(self, rules: Rules, clients: int, chance: Random) -> None:
        self.chance = chance
        self.run = Course(rules=rules)
        self.clients = [Client(i) for i in range(clients)]
        self.timers: dict[str, events.SetTimer] = {}
        self.given: dict[int, tuple[Assignment, int]] = {}
        self.newest: dict[int, Assignment] = {}
        self.receipts: dict[int, bool] = {}
        self.frozen: set[tuple[int, bool]] = set()
        self.counted: list[set[int]] = []
        self.model = 0
        self.folding = False
        self.end: events.EndRun | None = None

    # the coordinator's hands

    def dispatch(self, event: events.Event) -> None:
        self.run, effects = rounds.step(self.run, event)
        for effect in effects:
            self.carry_out(effect)

    def carry_out(self, effect: events.Effect) -> None:
        match effect:
            case events.Greet(client, True, working) if self.run.shards:
                self.tell(client, session.Started("r"))
                if working:
                    self.assign(client, self.newest[client])
            case events.Freeze(clients):
                for client in clients:
                    self.tell(client, session.Started("r"))
            case events.OpenRound(round_, cohort) | events.OpenEvaluation(round_, cohort):
                training = isinstance(effect, events.OpenRound)
                for client in cohort:
                    self.newest[client] = self.assignment(round_, training)
                    self.given[self.newest[client].assignment_id] = self.newest[client], client
                    self.assign(client, self.newest[client])
            case events.CloseRound(round_, missing):
                self.frozen.add((round_, True))
                accepted = [
                    n for n, (a, _) in self.given.items() if self.is_of(a, round_, True) and self.receipts.get(n)
                ]
                self.counted.append(set(accepted))
                self.folding = True
                for client in missing:
                    self.tell(client, session.Cancelled(self.newest[client].assignment_id))
            case events.CloseEvaluation(round_):
                self.frozen.add((round_, False))
                self.dispatch(events.Decided())
            case events.SetTimer(name, _, _):
                self.timers[name] = effect
            case events.ClearTimer(name):
                self.timers.pop(name, None)
            case events.EndRun():
                assert self.end is None
                self.end = effect
                self.timers.clear()
                for one in self.clients:
                    self.tell(one.index, session.RunEnded(False))

    def assignment(self, round_: int, training: bool) -> Assignment:
        return Assignment(
            assignment_id=len(self.given) + 1,
            run_id="r",
            round=round_,
            version=Version(model=self.model),
            deadline_s=1.0,
            work=TrainWork() if training else EvaluateWork(),
        )

    @staticmethod
    def is_of(assignment: Assignment, round_: int, training: bool) -> bool:
        return assignment.round == round_ and isinstance(assignment.work, TrainWork) == training

    def tell(self, client: int, news: News) -> None:
        if self.clients[client].connected:
            self.clients[client].inbox.append(news)

    def assign(self, client: int, assignment: Assignment) -> None:
        self.tell(client, session.Assigned(assignment, False))

    def submitted(self, client: Client, number: int) -> bool:
        """What the store says to a result; the same answer every time."""
        assignment, owner = self.given[number]
        assert owner == client.index
        if number not in self.receipts:
            training = isinstance(assignment.work, TrainWork)
            self.receipts[number] = (assignment.round, training) not in self.frozen
            if self.receipts[number] and assignment.round == self.run.round:
                self.dispatch(events.Accepted(client.index))
        return self.receipts[number]

    # the clients' hands

    def hear(self, client: Client, news: News) -> None:
        if isinstance(news, session.Assigned):
            news = session.Assigned(news.assignment, news.assignment.assignment_id in client.sealed)
        client.state, effects = session.step(client.state, news)
        for effect in effects:
            match effect:
                case session.Abandon():
                    client.doing = None
                case session.Decline(number, reason) if (
                    client.connected and self.newest[client.index].assignment_id == number
                ):
                    self.dispatch(events.Declined(client.index, reason))
                case session.Settle(number, _):
                    client.sealed.discard(number)
                case session.Pull() | session.Work() | session.Submit():
                    client.doing = effect

    def go_on(self, client: Client) -> None:
        """The client's hands finish what they are at."""
        doing, client.doing = client.doing, None
        match doing:
            case session.Pull(assignment):
                if assignment.version.model == self.model:
                    self.hear(client, session.Pulled(assignment.version))
                else:
                    self.hear(
                        client, session.Failed(assignment.assignment_id, "this version is not to be had any more")
                    )
            case session.Work(assignment):
                number = assignment.assignment_id
                if self.chance.random() < 0.1:
                    self.hear(client, session.Failed(number, "no memory"))
                    return
                assert number not in client.sealed
                client.sealed.add(number)
                client.trained.append(number)
                self.hear(client, session.Worked(number))
            case session.Submit(assignment):
                accepted = self.submitted(client, assignment.assignment_id)
                if self.chance.random() < 0.2:  # the receipt is lost: the transport sends again
                    client.doing = doing
                else:
                    self.hear(client, session.Receipted(assignment.assignment_id, accepted))

    # chance

    def happen(self) -> None:
        """One thing, whichever."""
        able = [c for c in self.clients if c.inbox or c.doing]
        dice = self.chance.random()
        client = self.chance.choice(self.clients)
        if dice < 0.08:
            self.turn(client)
        elif dice < 0.12 and self.timers:
            name = self.chance.choice(sorted(self.timers))
            self.dispatch(self.timers.pop(name).event)
        elif dice < 0.25 and self.folding:
            self.commit()
        elif able:
            busy = self.chance.choice(able)
            self.hear(busy, busy.inbox.popleft()) if busy.inbox else self.go_on(busy)
        elif self.folding:
            self.commit()
        elif self.timers:
            self.dispatch(self.timers.pop(min(self.timers)).event)
        else:
            self.turn(self.chance.choice([c for c in self.clients if not c.connected]))

    def turn(self, client: Client) -> None:
        """Come, or break off: what was under way to the client is lost, its work is not."""
        client.connected = not client.connected
        if client.connected:
            self.dispatch(events.Joined(client.index))
        else:
            client.inbox.clear()
            self.dispatch(events.Left(client.index))

    def commit(self) -> None:
        self.folding = False
        self.model += 1
        self.dispatch(events.Committed())


rules = st.builds(
    Rules,
    rounds=st.integers(1, 5),
    expect=st.sampled_from([0, 2, 3]),
    share=st.sampled_from([0.5, 1.0]),
    over_select=st.sampled_from([0.0, 0.5]),
    quorum=st.sampled_from([0.5, 1.0]),
    on_miss=st.sampled_from(["close", "extend"]),
    late=st.sampled_from(["wait", "admit"]),
    clients_evaluate=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(rules, st.integers(3, 5), st.integers(0, 1 << 32))
def test_two_tables_always_come_to_an_end(rules: Rules, clients: int, seed: int) -> None:
    world = World(rules, clients, Random(seed))
    for _ in range(4000):
        if world.end is not None:
            break
        world.happen()
    assert world.end is not None, world.run
    folded = [number for numbers in world.counted for number in numbers]
    assert len(folded) == len(set(folded))
    assert all(numbers for numbers in world.counted), "a round was folded without an update"
    for client in world.clients:
        assert len(client.trained) == len(set(client.trained))
    # Whoever still is there is told to go home, and goes.
    for client in world.clients:
        while client.inbox:
            world.hear(client, client.inbox.popleft())
        assert client.state.phase is session.Phase.GONE or not client.connected
