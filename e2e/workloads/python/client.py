"""Proves that the Python package `spiffe`, unmodified, gets what it asks of the Workload API.

It fetches X.509 and JWT material, validates a JWT-SVID both here and by the Workload API, and watches X.509 contexts. It
prints one JSON object a line, never a key or a token, and exits 0 after the wanted number of X.509 updates. With --serve it
is a server over mTLS instead, with Python's own ssl and the files of a credential folder, until it is terminated.
"""

import argparse
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
    arguments.add_argument("--folder", help="folder of credential and trust anchors")
    options = arguments.parse_args()

    # As PID 1 of a container a program gets no default handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if options.serve:
        serve(options.serve, options.allow, options.folder)
        return
    try:
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


def serve(port: int, allowed: str, folder: str) -> None:
    """Serves at PORT with a new context for each connection, and at the next port with one context for good.

    A context only ever adds trust anchors: whoever reads ca.crt again into the same context goes on trusting what has left
    that file. The second server shows it.
    """
    kept = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    servers = [
        threading.Thread(target=accept, args=(port, lambda: load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), folder), allowed)),
        threading.Thread(target=accept, args=(port + 1, lambda: load(kept, folder), allowed)),
    ]
    for server in servers:
        server.daemon = True
        server.start()
    for server in servers:
        server.join()


def load(context: ssl.SSLContext, folder: str) -> ssl.SSLContext:
    """Reads the credential and the trust anchors as they are now into a context."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_REQUIRED
    # One file, so that key and chain are of one moment.
    context.load_cert_chain(f"{folder}/credential-bundle.private-key.x509.pem")
    context.load_verify_locations(f"{folder}/ca.crt")
    return context


def accept(port: int, context: Callable[[], ssl.SSLContext], allowed: str) -> None:
    """Answers each client with a line that says whom it saw."""
    with socket.create_server(("0.0.0.0", port)) as listener:
        say(event="listening", port=port)
        while True:
            connection, _ = listener.accept()
            connection.settimeout(10)
            try:
                with context().wrap_socket(connection, server_side=True) as stream:
                    names = stream.getpeercert()["subjectAltName"]
                    ids = [value for kind, value in names if kind == "URI"]
                    if ids != [allowed]:
                        raise ssl.SSLCertVerificationError(f"{ids} may not call")
                    stream.sendall(json.dumps({"peer": ids[0]}).encode() + b"\n")
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
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
