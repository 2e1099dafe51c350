"""The authority's counter for people: `fedprune certs VERB` and `fedprune invite`.

Thin as every command line here: arguments in, one call to the office, lines or one JSON object out.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from fedprune import commands

certs = commands.new_app("certs", "Certificates of a federation: make, list, revoke and replace them.")

Hosts = Annotated[
    list[str] | None,
    typer.Argument(metavar="HOST...", help="Names and addresses of the coordinator. [default: this machine's name]"),
]
Certs = Annotated[Path, typer.Option("--certs", metavar="DIR", help="The folder of the federation's certificates.")]
Federation = Annotated[str, typer.Option(metavar="NAME", help="What the federation is called in its certificates.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose certificate it is.")]
Site = Annotated[str, typer.Argument(metavar="SITE", help="What the client is called in its certificate.")]
Role = Annotated[str, typer.Option(help="What it may do: trainer, evaluator, observer or operator.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where to write tls.key, tls.crt and ca.crt.")]
Whom = Annotated[str, typer.Argument(metavar="NAME|IDENTITY", help="As `fedprune certs list` shows it.")]
Reason = Annotated[str, typer.Option(help="Kept in the register.")]
RootFolder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where the root's key is. [default: root/ in the certificates' folder]"),
]
NewRoot = Annotated[bool, typer.Option("--new-root", help="Replace the root as well; the old one stays trusted.")]
Server = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="The coordinator, as clients reach it. [default: its first host]"),
]
EnrolPort = Annotated[int, typer.Option(min=1, max=65535, help="The coordinator's [network] enrol_port.")]
Hours = Annotated[float, typer.Option(min=0.01, max=24 * 90, help="How long the invitation is good.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]

CERTS = Path("certs")


@certs.command("init")
def init(hosts: Hosts = None, certs: Certs = CERTS, federation: Federation = "fedprune", as_json: Json = False) -> None:
    """Make a root, an issuing authority, and certificates for the coordinator and its operator.

    \b
    Example: fedprune certs init fl.example.org 10.0.0.5
    """
    from fedprune.pki.certificates import fingerprint
    from fedprune_server.authority.folder import OPERATOR, ROOT, SERVER
    from fedprune_server.authority.office import Office

    named = hosts or [socket.gethostname()]
    office = Office.found(certs, federation=federation, hosts=named, now=datetime.now(UTC))
    ca = fingerprint(office.trust[0])
    if as_json:
        commands.print_json({"certs": str(certs), "federation": federation, "hosts": named, "ca_sha256": ca})
        return
    print(f"{certs / SERVER}: the coordinator's, for {', '.join(named)} and this machine itself")
    print(f"{certs / OPERATOR}: an operator's, for `fedprune stop --credentials {certs / OPERATOR}`")
    print(f"{certs / ROOT}: the root's key; move this folder to a place without a network, `certs rotate` asks for it")
    print(f"fingerprint of the root: {ca}")
    print(f"next: fedprune server run.toml --task task.py --certs {certs} --address 0.0.0.0:7400; fedprune invite SITE")


@certs.command("list")
def show(certs: Certs = CERTS, as_json: Json = False) -> None:
    """List certificates and open invitations.

    \b
    Example: fedprune certs list
    """
    from fedprune_server.authority import listing

    found = listing.listed(certs, datetime.now(UTC))
    if as_json:
        commands.print_json(found)
    else:
        print("\n".join(listing.lines(found)))


@certs.command("issue")
def issue(name: Name, out: Out, role: Role = "trainer", certs: Certs = CERTS, as_json: Json = False) -> None:
    """Make a key and certificate here, for someone who cannot enrol: a secret store, another operator.

    \b
    Example: fedprune certs issue night-shift --role operator --out night-shift
    """
    from fedprune.pki.subject import Subject
    from fedprune_server.authority.listing import role_named
    from fedprune_server.authority.office import Office

    office = Office(certs)
    subject = Subject(federation=office.federation, role=role_named(role), name=name)
    credentials = office.provide(out, subject, datetime.now(UTC))
    if as_json:
        commands.print_json({"name": name, "role": role, "identity": credentials.identity, "out": str(out)})
    else:
        print(f"{out}: {role} {name}, until {credentials.leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")


@certs.command("revoke")
def revoke(who: Whom, reason: Reason = "", certs: Certs = CERTS, as_json: Json = False) -> None:
    """Take somebody's key out of the federation: a running coordinator cuts it off within seconds.

    \b
    Example: fedprune certs revoke ward-7 --reason "laptop lost"
    """
    from fedprune_server.authority import listing

    identities = listing.revoke(certs, who, reason, datetime.now(UTC))
    if as_json:
        commands.print_json({"revoked": identities})
    else:
        print(*(f"revoked: {identity}" for identity in identities), sep="\n")


@certs.command("rotate")
def rotate(root: RootFolder = None, new_root: NewRoot = False, certs: Certs = CERTS, as_json: Json = False) -> None:
    """Replace the issuing authority, and with --new-root the root; nobody's certificate becomes invalid by it.

    \b
    Example: fedprune certs rotate --root /media/stick/root
    """
    from fedprune.pki.certificates import fingerprint
    from fedprune_server.authority.folder import ROOT
    from fedprune_server.authority.office import Office

    office = Office(certs)
    office.rotate(datetime.now(UTC), root_folder=root or certs / ROOT, new_root_too=new_root)
    ca = [fingerprint(certificate) for certificate in office.trust]
    if as_json:
        commands.print_json({"ca_sha256": ca})
    else:
        print("replaced; a running coordinator shows its new certificate from the next connection on")
        print(*(f"root: {one}" for one in ca), sep="\n")


def invite(
    site: Site,
    server: Server = None,
    enrol_port: EnrolPort = 7402,
    role: Role = "trainer",
    hours: Hours = 24.0,
    certs: Certs = CERTS,
    as_json: Json = False,
) -> None:
    """Print one line with which a client on another machine joins, once: fedprune client --join LINE --task task.py

    \b
    Example: fedprune invite ward-7 --server fl.example.org:7400
    """
    from fedprune_server.authority import listing

    life = timedelta(hours=hours)
    line = listing.invite(certs, site, role, datetime.now(UTC), server=server, enrol_port=enrol_port, life=life)
    if as_json:
        commands.print_json({"site": site, "role": role, "hours": hours, "line": str(line)})
    else:
        print(line)
