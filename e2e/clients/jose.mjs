#!/usr/bin/env node
// A relying party with the npm package `jose`, which knows OpenID Connect and not SPIFFE: validates the JWT-SVID on its standard
// input for an issuer and an audience, with no more than the issuer's discovery document. Prints one JSON object, never a token.
//
//     jose.mjs ISSUER AUDIENCE < token
//
// NODE_EXTRA_CA_CERTS has the authority of the issuer's web certificate.

import { readFileSync } from "node:fs";
import { createRemoteJWKSet, errors, jwtVerify } from "jose";

const [issuer, audience] = process.argv.slice(2);
const token = readFileSync(0, "utf8").trim();

// OpenID Connect Discovery 1.0, section 4.
const response = await fetch(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`);
if (!response.ok) {
  throw new Error(`the discovery document: status ${response.status}`);
}
const configuration = await response.json();
if (configuration.issuer !== issuer) {
  throw new Error(`the discovery document is of the issuer ${configuration.issuer}`);
}
const keys = createRemoteJWKSet(new URL(configuration.jwks_uri));
const algorithms = configuration.id_token_signing_alg_values_supported;
try {
  const { payload } = await jwtVerify(token, keys, { issuer, audience, algorithms, requiredClaims: ["sub", "exp"] });
  console.log(JSON.stringify({ event: "accepted", id: payload.sub }));
} catch (error) {
  // What is refused about a token; everything else has failed.
  if (!(error instanceof errors.JOSEError) || error instanceof errors.JWKSTimeout || error.code === "ERR_JOSE_GENERIC") {
    throw error;
  }
  console.log(JSON.stringify({ event: "refused", error: error.code, claim: error.claim }));
}
