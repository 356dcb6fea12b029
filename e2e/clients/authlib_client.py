#!/usr/bin/python3
"""A relying party with the Python package `authlib`, which knows OpenID Connect and not SPIFFE.

Validates the JWT-SVID on its standard input for an issuer and an audience, with no more than the issuer's discovery document.
Prints one JSON object, never a token.

    authlib_client.py ISSUER AUDIENCE < token

SSL_CERT_FILE has the authority of the issuer's web certificate.
"""

import json
import ssl
import sys
import urllib.request
from pathlib import Path

# Where `cargo xtask` installs what requirements.txt names.
sys.path.insert(0, str(Path(__file__).parent / "packages"))

from authlib.jose import JsonWebKey, JsonWebToken
from authlib.jose.errors import JoseError
from authlib.oidc.discovery import get_well_known_url


def main(issuer: str, audience: str) -> None:
    token = sys.stdin.read().strip()
    configuration = fetch(get_well_known_url(issuer, external=True))
    if configuration["issuer"] != issuer:
        raise ValueError(f"the discovery document is of the issuer {configuration['issuer']}")
    keys = JsonWebKey.import_key_set(fetch(configuration["jwks_uri"]))
    wanted = {
        "iss": {"essential": True, "value": issuer},
        "aud": {"essential": True, "value": audience},
        "sub": {"essential": True},
        "exp": {"essential": True},
    }
    try:
        verifier = JsonWebToken(configuration["id_token_signing_alg_values_supported"])
        claims = verifier.decode(token, keys, claims_options=wanted)
        claims.validate()
    except JoseError as error:
        print(json.dumps({"event": "refused", "error": error.error, "claim": getattr(error, "claim_name", None)}))
        return
    print(json.dumps({"event": "accepted", "id": claims["sub"]}))


def fetch(url: str) -> dict:
    # The package `requests` would bring a list of authorities under a licence that is not permissive.
    with urllib.request.urlopen(url, timeout=10, context=ssl.create_default_context()) as response:
        return json.load(response)


if __name__ == "__main__":
    main(*sys.argv[1:])
