"""Who may call what: one row for each call there is, and whoever is not in it is refused.

The table is complete by construction: a call that is added to the wire without a row here keeps the program from
starting, and every test from running.
"""

from __future__ import annotations

from fedprune.errors import LocalError, RoleError
from fedprune.pki.subject import Role
from fedprune.v1 import coordinator_pb2, enrolment_pb2

COORDINATOR = "fedprune.v1.Coordinator"
RENEWAL = "fedprune.v1.Renewal"
ENROLMENT = "fedprune.v1.Enrolment"
HEALTH = "grpc.health.v1.Health"

EVERYONE = frozenset(Role)
WORKERS = frozenset({Role.TRAINER})
READERS = frozenset({Role.TRAINER, Role.EVALUATOR})

ROLES: dict[str, frozenset[Role]] = {
    f"/{COORDINATOR}/Join": READERS,
    f"/{COORDINATOR}/Work": WORKERS,
    f"/{COORDINATOR}/Pull": READERS,
    f"/{COORDINATOR}/Submit": WORKERS,
    f"/{COORDINATOR}/Status": EVERYONE,
    f"/{COORDINATOR}/Stop": frozenset({Role.OPERATOR}),
    f"/{COORDINATOR}/Probe": EVERYONE,
    f"/{RENEWAL}/Renew": EVERYONE,
    f"/{HEALTH}/Check": EVERYONE,
}
# On the enrolment port only, where nobody has a certificate yet.
WITHOUT_IDENTITY = frozenset({f"/{ENROLMENT}/Roots", f"/{ENROLMENT}/Enrol"})


def calls_on_the_wire() -> set[str]:
    """Every call of our own services, as gRPC names them."""
    files = (coordinator_pb2.DESCRIPTOR, enrolment_pb2.DESCRIPTOR)
    services = [service for file in files for service in file.services_by_name.values()]
    return {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}


_without_row = calls_on_the_wire() - ROLES.keys() - WITHOUT_IDENTITY
if _without_row:
    raise LocalError("calls without a row in the table of roles", seen=sorted(_without_row))


def check(method: str, role: Role, *, party: str) -> None:
    """Raise `RoleError` when this role may not make this call; a call that is not in the table is nobody's."""
    allowed = ROLES.get(method, frozenset())
    if role not in allowed:
        raise RoleError(
            f"may not call {method.rpartition('/')[2]}",
            party=party,
            seen=f"role {role}",
            expected=" or ".join(sorted(allowed)) or "nobody",
        )
