"""Proves that the Python package `spiffe`, unmodified, gets what it asks of the Workload API.

It fetches X.509 and JWT material, validates a JWT-SVID both here and by the Workload API, and watches X.509 contexts. It
prints one JSON object a line, never a key or a token, and exits 0 after the wanted number of X.509 updates. Instead it can be a
server over mTLS until it is terminated (--serve), or a client that makes one handshake (--call), with Python's own ssl and the
files of a credential folder.
"""

import argparse
import contextlib
import datetime
import json
import queue
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable

from spiffe import JwtSvid, WorkloadApiClient


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--audience", help="audience of the JWT-SVID to fetch and validate")
    arguments.add_argument("--updates", type=int, default=1, help="X.509 updates to see before exiting")
    arguments.add_argument("--serve", type=int, metavar="PORT", help="serve mTLS at PORT and the one after it")
    arguments.add_argument("--allow", help="SPIFFE ID that may call that server")
    arguments.add_argument("--call", metavar="HOST:PORT", help="make one handshake with the mTLS server there")
    arguments.add_argument("--expect", help="SPIFFE ID which that server must have")
    arguments.add_argument("--folder", help="folder of credential and trust anchors")
    arguments.add_argument("--trust-domain", help="whose trust anchors the peer is verified by; those of the own one if absent")
    options = arguments.parse_args()

    # As PID 1 of a container a program gets no default handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if options.serve:
        serve(options.serve, options.allow, Files(options.folder, options.trust_domain))
        return
    try:
        if options.call:
            call(options.call, options.expect, Files(options.folder, options.trust_domain))
            return
        # The address comes from SPIFFE_ENDPOINT_SOCKET.
        with WorkloadApiClient(default_timeout=10.0) as client:
            client.fetch_x509_svid()
            bundles(client)
            if options.audience:
                token(client, options.audience)
            watch(client, options.updates)
    except Exception as error:
        say(event="error", error=f"{type(error).__name__}: {error}")
        sys.exit(1)


def bundles(client: WorkloadApiClient) -> None:
    """Fetches both kinds and says how many authorities the trust domains have."""
    jwt = client.fetch_jwt_bundles()
    for bundle in client.fetch_x509_bundles().bundles:
        keys = jwt.get_bundle_for_trust_domain(bundle.trust_domain)
        say(
            event="bundle",
            trust_domain=bundle.trust_domain.name,
            x509_authorities=len(bundle.x509_authorities),
            jwt_authorities=len(keys.jwt_authorities) if keys else 0,
        )


def token(client: WorkloadApiClient, audience: str) -> None:
    """Fetches a JWT-SVID, validates it against the bundle, and has the Workload API validate it."""
    svid = client.fetch_jwt_svid(audience={audience})
    bundle = client.fetch_jwt_bundles().get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    here = JwtSvid.parse_and_validate(svid.token, bundle, {audience})
    there = client.validate_jwt_svid(svid.token, audience)
    say(
        event="jwt",
        id=str(here.spiffe_id),
        audience=sorted(here.audience),
        expiry=rfc3339(datetime.datetime.fromtimestamp(here.expiry, datetime.timezone.utc)),
        validated=str(there.spiffe_id),
    )


class Files:
    """The files of a credential folder: the credential, and the trust anchors of one trust domain.

    There is one context for each trust domain, never one with the anchors of several: ssl verifies that a chain ends in any of
    a context's anchors, and does not say in which. The authority of one trust domain could then sign the ids of another.
    """

    def __init__(self, folder: str, trust_domain: str | None) -> None:
        self.credential = f"{folder}/credential-bundle.private-key.x509.pem"
        self.anchors = f"{folder}/{trust_domain}.spiffe-trust-bundle.x509.pem" if trust_domain else f"{folder}/ca.crt"

    def load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """Reads the credential and the trust anchors as they are now into a context."""
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # A SPIFFE ID is compared instead of the host name.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        # One file, so that key and chain are of one moment.
        context.load_cert_chain(self.credential)
        context.load_verify_locations(self.anchors)
        return context

    def server(self, context: ssl.SSLContext | None = None) -> ssl.SSLContext:
        context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0
        return self.load(context)

    def client(self) -> ssl.SSLContext:
        return self.load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def peer_of(stream: ssl.SSLSocket, wanted: str) -> str:
    """The SPIFFE ID in the peer's certificate, which must be the wanted one."""
    names = stream.getpeercert()["subjectAltName"]
    ids = [value for kind, value in names if kind == "URI"]
    if ids != [wanted]:
        raise ssl.SSLCertVerificationError(f"{ids} is not {wanted}")
    return ids[0]


def call(target: str, expected: str, files: Files) -> None:
    """Makes one handshake and reads the line in which the server says whom it saw."""
    host, port = target.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        with files.client().wrap_socket(connection) as stream:
            peer = peer_of(stream, expected)
            seen = json.loads(stream.makefile().readline())
    say(event="handshake", local=seen["peer"], peer=peer)


def serve(port: int, allowed: str, files: Files) -> None:
    """Serves at PORT with a new context for each connection, and at the next port with one context for good.

    A context only ever adds trust anchors: whoever reads ca.crt again into the same context goes on trusting what has left
    that file. The second server shows it.
    """
    kept = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    servers = [
        threading.Thread(target=accept, args=(port, files.server, allowed)),
        threading.Thread(target=accept, args=(port + 1, lambda: files.server(kept), allowed)),
    ]
    for server in servers:
        server.daemon = True
        server.start()
    for server in servers:
        server.join()


def accept(port: int, context: Callable[[], ssl.SSLContext], allowed: str) -> None:
    """Answers each client with a line that says whom it saw."""
    with socket.create_server(("0.0.0.0", port)) as listener:
        say(event="listening", port=port)
        while True:
            connection, _ = listener.accept()
            connection.settimeout(10)
            try:
                with context().wrap_socket(connection, server_side=True) as stream:
                    peer = peer_of(stream, allowed)
                    stream.sendall(json.dumps({"peer": peer}).encode() + b"\n")
                    # The client learns by it that the answer has ended; it need not say so too.
                    with contextlib.suppress(OSError):
                        stream.unwrap()
            except OSError as error:
                connection.close()
                say(event="failed", port=port, error=f"{type(error).__name__}: {error}")


def watch(client: WorkloadApiClient, updates: int) -> None:
    """Reports X.509 contexts until there were enough."""
    arrived = queue.Queue()
    handle = client.stream_x509_contexts(arrived.put, arrived.put)
    for _ in range(updates):
        update = arrived.get()
        if isinstance(update, Exception):
            raise update
        svid = update.default_svid
        say(
            event="x509",
            id=str(svid.spiffe_id),
            serial=f"{svid.leaf.serial_number:x}",
            issuer=svid.leaf.issuer.rfc4514_string(),
            not_after=rfc3339(svid.leaf.not_valid_after_utc),
        )
    handle.cancel()
    say(event="done", updates=updates)


def rfc3339(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def say(**line: object) -> None:
    # In one piece, as several threads say something.
    print(json.dumps(line) + "\n", end="", flush=True)


if __name__ == "__main__":
    main()
