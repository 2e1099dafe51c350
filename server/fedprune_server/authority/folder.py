"""What lies where in the folder of a federation's authority. Names only: who looks whether something is there loads no
cryptography for it."""

from __future__ import annotations

ROOT, ISSUING, SERVER, OPERATOR = "root", "issuing", "server", "operator"
REGISTER = "register.sqlite"
AUTHORITY = "authority.pem"
# Under these the coordinator is always reached by itself.
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
