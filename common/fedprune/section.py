"""What the sections of a run file are made of: a frozen model that refuses unknown keys, and numbers with their bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _host_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT, such as 127.0.0.1:7400")
    return address


Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
ShareOrZero = Annotated[float, Field(ge=0, le=1)]
Patterns = Annotated[tuple[str, ...], Field(strict=False)]
HostPort = Annotated[str, AfterValidator(_host_port)]
File = Annotated[Path, Field(strict=False)]
Values = Literal["lossless", "raw", "fp16", "bf16", "int8", "int4", "ternary"]


class Section(BaseModel):
    """A table of the file: unknown keys and wrong types are refused, nothing changes after reading."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)
