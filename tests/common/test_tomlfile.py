"""The first wrong thing in a TOML file is named by file, line and key."""

from __future__ import annotations

import tomllib
from pathlib import Path as FilePath
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedprune.errors import ConfigError, LocalError, StoreError
from fedprune.tomlfile import key_lines, naming_lines, parse, parse_override


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Oven(Strict):
    degrees: Annotated[int, Field(ge=0, le=300)] = 180
    fan: bool = False
    trays: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _fan_needs_heat(self) -> Oven:
        if self.fan and not self.degrees:
            raise ValueError("fan = true needs degrees")
        return self


class Kitchen(Strict):
    oven: Oven = Oven()


def error_of(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, Kitchen, name="kitchen.toml", overrides=overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# warm\n[oven]\ndegres = 3\n", "kitchen.toml line 3: [oven] degres is not a key; did you mean degrees?"),
        ("[oven]\nlid = 3\n", "kitchen.toml line 2: [oven] lid is not a key; there is degrees, fan, trays"),
        ("\n[over]\nfan = true\n", "kitchen.toml line 2: [over] is not a section; did you mean oven?"),
        ("oven.degres = 3\n", "kitchen.toml line 1: [oven] degres is not a key; did you mean degrees?"),
        (
            "[oven]\ndegrees = 301\n",
            "line 2: [oven] degrees is not usable (got 301, expected less than or equal to 300)",
        ),
        ("[oven]\ndegrees = '9'\n", "line 2: [oven] degrees is not usable (got '9', expected a valid integer)"),
        ("[oven]\ndegrees = true\n", "line 2: [oven] degrees is not usable (got True, expected a valid integer)"),
        ("[oven]\ntrays = [\n 'a=b',\n 4]\n", "line 2: [oven] trays is not usable (got 4, expected a valid string)"),
        ("oven = 3\n", "line 1: [oven] is not usable (got 3, expected a section with keys)"),
        ("[oven]\nfan = true\ndegrees = 0\n", "line 1: [oven]: fan = true needs degrees"),
        ("[oven]\ndegrees = = 3\n", "kitchen.toml is not valid TOML: Invalid value (at line 2"),
        ("[oven]\nfan = true\nfan = true\n", "kitchen.toml is not valid TOML: Cannot overwrite a value (at line 3"),
    ],
)
def test_names_the_place(text: str, message: str) -> None:
    assert message in error_of(text)


def test_reports_the_first_of_several() -> None:
    assert "line 2: [oven] lid" in error_of("[oven]\nlid = 1\ndegrees = 400\n")
    assert "line 2: [oven] degrees" in error_of("[oven]\ndegrees = 400\nlid = 1\n")


def test_overrides_win_and_are_blamed() -> None:
    text = "[oven]\ndegrees = 400\n"
    assert parse(text, Kitchen, name="k", overrides=["oven.degrees=20", "oven.degrees = 30"]).oven.degrees == 30
    assert error_of(text, "oven.degrees=999").startswith("--set oven.degrees=999: [oven] degrees is not usable")
    assert "did you mean fan?" in error_of("", "oven.fam=true")


def test_an_override_of_what_is_no_section() -> None:
    assert "[oven] is no section" in error_of("oven = 3\n", "oven.degrees=3")


@pytest.mark.parametrize("override", ["degrees=3", "oven.degrees", "a.b.c=3", ".x=3", "=3", ""])
def test_overrides_that_cannot_be_read(override: str) -> None:
    assert "expected section.key=value" in error_of("", override)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("3", 3),
        ("true", True),
        ("'x'", "x"),
        ("plain", "plain"),
        ("[1, 2]", [1, 2]),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_override_values(text: str, value: object) -> None:
    assert parse_override(f"a.b={text}") == (("a", "b"), value)


def test_strings_in_arrays_are_no_keys() -> None:
    assert key_lines("[a]\nx = [\n 'y = 3',\n]\nz=1") == {("a",): 1, ("a", "x"): 2, ("a", "z"): 5}


keys = st.from_regex(r"[a-z][a-z0-9_-]{0,5}", fullmatch=True)


@given(st.dictionaries(keys, st.dictionaries(keys, st.integers() | st.booleans(), min_size=1, max_size=4), max_size=4))
def test_every_key_of_a_file_has_its_line(sections: dict[str, dict[str, int]]) -> None:
    lines: list[str] = []
    wanted: dict[tuple[str, ...], int] = {}
    for section, content in sections.items():
        lines += ["", f"[ {section} ]  # remark = here"]
        wanted[(section,)] = len(lines)
        for key, value in content.items():
            lines.append(f"  {key}= {str(value).lower()}")
            wanted[section, key] = len(lines)
    text = "\n".join(lines)
    assert tomllib.loads(text) == sections
    assert key_lines(text) == wanted


def test_what_shows_only_against_the_model_names_its_line_too(tmp_path: FilePath) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[run]\nrounds = 3\n[pruning]\n\nevery = 9\n")
    with pytest.raises(ConfigError, match=r"run\.toml line 5: no step fits pruning\.every"), naming_lines([file]):
        raise LocalError("no step fits pruning.every")
    with pytest.raises(LocalError, match=r"^pruning\.stages are wrong"), naming_lines([file]):
        raise LocalError("pruning.stages are wrong")
    with pytest.raises(StoreError, match=r"^pruning\.every"), naming_lines([file]):
        raise StoreError("pruning.every")
