"""The run file: defaults, what is refused, and that the resolved file says the same again."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from fedprune.config import RunConfig
from fedprune.errors import ConfigError
from fedprune.framing import MAX_CHUNK_BYTES
from fedprune.pruning_section import PruningSection

FULL = """
[run]
name = "ward-7"
rounds = 12
[pruning]
density = 0.1
protect = ["head.*"]
[clients]
expect = 4
min_clients = 3
"""


def test_an_empty_file_is_a_run() -> None:
    config = RunConfig.loads("")
    assert config == RunConfig()
    assert (config.run.rounds, config.pruning.density, config.clients.settle_s) == (40, 1.0, 5.0)


def test_reads_and_overrides() -> None:
    config = RunConfig.loads(FULL, overrides=["pruning.density=0.05", "run.name=ward-8"])
    assert (config.run.name, config.run.rounds) == ("ward-8", 12)
    assert (config.pruning.density, config.pruning.protect) == (0.05, ("head.*",))


def test_whole_numbers_serve_as_shares() -> None:
    density = RunConfig.loads("[pruning]\ndensity = 1").pruning.density
    assert isinstance(density, float)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[pruning]\ndensty = 0.1", "line 2: [pruning] densty is not a key; did you mean density?"),
        ("[pruning]\nsparsity = 0.9", "line 2: [pruning] sparsity is not a key"),
        ("[pruning]\ndensity = 0", "expected greater than 0"),
        ("[pruning]\ndensity = 1.1", "expected less than or equal to 1"),
        ("[pruning]\ndensity = nan", "[pruning] density is not usable"),
        ("[pruning]\nstart = 0.7", "start = 0.7 comes after end = 0.6"),
        ("[pruning]\nprotect = 'head'", "[pruning] protect is not usable"),
        ("[clients]\nexpect = 2\nmin_clients = 3", "min_clients = 3 can never be reached with expect = 2"),
        ("[clients]\nquorum = 0.0", "[clients] quorum"),
        ("[clients]\nsettle_s = inf", "[clients] settle_s"),
        ("[clients]\non_miss = 'wait'", "expected 'close' or 'extend'"),
        ("[training]\noptimizer = 'adam'", "expected 'sgd' or 'adamw'"),
        ("[training]\nheld_out = 0.25\nfold = 4", "there is no part 4 of 0.25 each"),
        ("[training]\nheld_out = 1.0", "expected less than 1"),
        ("[compression]\nup = 'int2'", "[compression] up"),
        ("[run]\nname = '../up'", "'../up' cannot name a folder"),
        ("[run]\nname = ''", "'' cannot name a folder"),
        ("[run]\nrounds = 1.5", "expected a valid integer"),
        ("[network]\naddress = 'localhost'", "'localhost' is not HOST:PORT"),
        ("[network]\naddress = 'h:70000'", "'h:70000' is not HOST:PORT"),
        (f"[network]\nchunk_bytes = {MAX_CHUNK_BYTES + 1}", "[network] chunk_bytes"),
        ("[network]\nchunk_bytes = 1000", "1000 bytes are less than a message is worth; use 0 or at least 1024"),
        ("[clients]\ndensities = {a = 0.1}", "{'a': 0.1} are not among pruning.levels = []"),
        ("[pruning]\nmerge = 'union'", "which 'magnitude' is not"),
        ("[pruning]\nmerge = 'loudest'", "expected 'scores', 'union', 'majority', 'intersection' or 'quorum'"),
        ("[pruning]\nmethod = 'snip'\nmerge = 'union'\nschedule = 'regrow'", "line 4: [pruning] schedule"),
        ("[pruning]\nmethod = 'snip'\nmerge = 'union'\ndensity = 0.5\nlayers = {a = 0.1}", "of all or of each tensor"),
        ("[pruning]\nmethod = 'snip'\nmerge = 'union'\nbudget = {flops = 9}", "line 4: [pruning] budget"),
        ("[pruning]\nlevels = [0.0, 1.0]", "[pruning] levels"),
        ("[pruning]\nlevels = [0.1]\n[compression]\ndown = 'int8'", "lossless or raw with pruning.levels"),
        (
            "[pruning]\nlevels = [0.1]\n[compression]\nstages = [[0.5, 'int8', 1.0]]",
            "lossless or raw with pruning.levels",
        ),
        ("[pruning]\nlevels = [0.1]\nmethod = 'snip'\nschedule = 'init'", "cannot score the rest of it"),
        ("[pruning]\nlevels = [0.1]\nschedule = 'regrow'", "line 3: [pruning] schedule"),
        ("[pruning]\nlevels = [0.1]\ndensity = 'auto'", "clients that all hold the whole model"),
        ("[pruning]\npreset = 'feddst'\n[compression]\ndown = 'int8'", 'lossless or raw with pruning.regrow = "local"'),
        ("[pruning]\ndistill = 0.5", "there is a recovery only with max_accuracy_drop"),
        ("[pruning]\ndensity = 'auto'\ndistill = 1.0", "the labels would not count"),
        ("[privacy]\nepsilon = 1", "line 2: [privacy] epsilon is not a key"),
    ],
)
def test_refuses(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.loads(text)
    assert part in str(caught.value)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[run]\ninit = 'first.safetensors'\n[task]\nfile = '/opt/task.py'\n")
    config = RunConfig.load(file)
    assert config.run.init == tmp_path / "first.safetensors"
    assert config.task.file == Path("/opt/task.py")


def test_load_says_which_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[run]\nround = 3\n")
    with pytest.raises(ConfigError, match=rf"{file} line 2: \[run\] round is not a key; did you mean rounds\?"):
        RunConfig.load(file)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_load_of_what_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "run.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot read the run file"):
        RunConfig.load(file)


def test_nothing_changes_after_reading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().run.rounds = 3


shares = st.floats(min_value=0.001, max_value=1.0)


@given(
    density=shares,
    ends=st.tuples(shares, shares).map(sorted),
    protect=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]))),
)
def test_the_resolved_file_reads_back_equal(density: float, ends: list[float], protect: list[str]) -> None:
    pruning = PruningSection(density=density, start=ends[0], end=ends[1], protect=tuple(protect))
    config = RunConfig(pruning=pruning)
    assert RunConfig.loads(config.to_toml()) == config


def test_the_resolved_file_has_every_key(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    given = "[run]\ninit = 'a'\n[task]\nfile = 'b'\n[page]\ntoken_file = 'c'\n"
    file.write_text(f"{given}[pruning]\npreset = 'gradual'\nmax_accuracy_drop = 0.01\n")
    written = tomllib.loads(RunConfig.load(file).to_toml())
    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        assert list(written[name]) == list(section.model_fields)


def test_every_key_is_described() -> None:
    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        bare = [key for key, inner in section.model_fields.items() if not inner.description]
        assert not bare, f"[{name}] keys without a description: {bare}"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('stages = [[0.5, "int8", 1.0], [0.2, "int4", 0.1]]', "begins after the one before it"),
        ('stages = [[0.5, "int8", 1.0], [0.5, "int4", 0.1]]', "begins after the one before it"),
        ('stages = [[0.5, "int8", 1.0]]\nplan = "auto"', "chooses each round's values itself"),
        ('stages = [[0.5, "int8", 1.0]]\nwarmup = 0.2', "warmup and stages"),
        ('stages = [[0.5, "int9", 1.0]]', "'int8'"),
        ('stages = [[0.5, "int8", 0.0]]', "greater than 0"),
    ],
)
def test_stages_of_compression_that_cannot_be_are_refused_with_their_line(keys: str, said: str) -> None:
    with pytest.raises(ConfigError, match="line 2") as refused:
        RunConfig.loads(f"[compression]\n{keys}\n")
    assert said in str(refused.value)


def test_stages_of_compression_are_written_out_and_read_again() -> None:
    config = RunConfig.loads('[compression]\nstages = [[0.5, "int8", 1.0], [0.75, "ternary", 0.04]]\n')
    assert config.compression.stages == ((0.5, "int8", 1.0), (0.75, "ternary", 0.04))
    assert RunConfig.loads(config.to_toml()) == config


def test_bytes_do_not_follow_where_a_stage_chooses_the_weights() -> None:
    with pytest.raises(ConfigError, match="bytes do not follow"):
        RunConfig.loads('[pruning]\nbudget = {bytes = 10000}\n[compression]\nstages = [[0.5, "int8", 0.5]]\n')
