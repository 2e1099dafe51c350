"""The line by which somebody joins."""

from __future__ import annotations

import pytest

from fedprune.errors import ConfigError
from fedprune.pki.invitation import Invitation

CA, TOKEN = "ab" * 32, "t" * 22


@pytest.mark.parametrize(
    ("server", "host", "address"),
    [
        ("fl.example.org:7400", "fl.example.org", "fl.example.org:7402"),
        ("10.0.0.5:7400", "10.0.0.5", "10.0.0.5:7402"),
        ("[fd00::5]:7400", "fd00::5", "[fd00::5]:7402"),
    ],
)
def test_a_line_is_read_as_it_was_printed(server: str, host: str, address: str) -> None:
    invitation = Invitation(server=server, enrol_port=7402, ca=CA, token=TOKEN)
    read = Invitation.parse(f" {invitation}\n")
    assert read == invitation
    assert (read.host, read.enrol_address) == (host, address)
    assert "\n" not in str(invitation)


@pytest.mark.parametrize(
    "line",
    [
        "",
        f"fl.example.org/7402/{CA}/{TOKEN}",
        f"fl.example.org:7400/7402/{CA}",
        f"fl.example.org:7400/0/{CA}/{TOKEN}",
        f"fl.example.org:7400/70000/{CA}/{TOKEN}",
        f"fl.example.org:7400/7402/{CA[:-1]}/{TOKEN}",
        f"fl.example.org:7400/7402/{CA}/short",
        f"fl.example.org:7400/7402/{CA}/{TOKEN}/",
    ],
)
def test_anything_else_is_refused_without_showing_the_token(line: str) -> None:
    with pytest.raises(ConfigError, match="not an invitation") as caught:
        Invitation.parse(line)
    assert TOKEN not in str(caught.value)
