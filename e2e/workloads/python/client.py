"""Proves that the Python package `spiffe`, unmodified, gets what it asks of the Workload API.

It fetches X.509 and JWT material, validates a JWT-SVID both here and by the Workload API, and watches X.509 contexts. It
prints one JSON object a line, never a key or a token, and exits 0 after the wanted number of X.509 updates.
"""

import argparse
import datetime
import json
import queue
import signal
import sys

from spiffe import JwtSvid, WorkloadApiClient


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--audience", help="audience of the JWT-SVID to fetch and validate")
    arguments.add_argument("--updates", type=int, default=1, help="X.509 updates to see before exiting")
    options = arguments.parse_args()

    # As PID 1 of a container a program gets no default handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
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
