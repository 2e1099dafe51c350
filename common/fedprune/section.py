"""What the sections of a run file are made of: a frozen model that refuses unknown keys, and numbers with their bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
ShareOrZero = Annotated[float, Field(ge=0, le=1)]
Patterns = Annotated[tuple[str, ...], Field(strict=False)]
File = Annotated[Path, Field(strict=False)]
Values = Literal["lossless", "raw", "fp16", "bf16", "int8", "int4", "ternary"]


class Section(BaseModel):
    """A table of the file: unknown keys and wrong types are refused, nothing changes after reading."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)
