"""A service of the standard library alone: its caller signs requests and gets signed responses, and it calls the next service with a
JWT-SVID over TLS.

    service.py PORT ORIGIN CALLER NEXT-URL NEXT-AUDIENCE
"""

import base64
import hashlib
import http.client
import http.server
import json
import os
import socket
import ssl
import sys
import urllib.parse

PORT, ORIGIN, CALLER, NEXT, AUDIENCE = sys.argv[1:]


class Agent(http.client.HTTPConnection):
    """The agent's proof socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["COUNTERSIGN_PROOF_SOCKET"].removeprefix("unix://"))


def ask(method: str, question: dict) -> tuple[int, dict]:
    agent = Agent("agent", timeout=10)
    agent.request("POST", f"/v1/{method}", json.dumps(question), {"workload.spiffe.io": "true"})
    response = agent.getresponse()
    return response.status, json.load(response)


def described(message: dict, headers: list, body: bytes) -> dict:
    hashed = {"body_sha256": base64.b64encode(hashlib.sha256(body).digest()).decode()} if body else {}
    return message | {"headers": headers} | hashed


class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        if not 0 <= length <= 1 << 20:
            return self.answer(413, [], b"")
        body = self.rfile.read(length)
        path, query = self.path.partition("?")[::2]
        target = {"method": self.command, "path": path} | ({"query": query} if "?" in self.path else {})
        request = described(target, self.headers.items(), body)
        status, seen = ask("verify-request", {"proofs": ["http-signature"], "origins": [ORIGIN], "callers": [CALLER], "request": request})
        if status != 200:
            print(seen.get("reason", seen), flush=True)
            refusal = seen.get("response", {"status": 503, "headers": []})
            return self.answer(refusal["status"], refusal["headers"], refusal.get("body", "").encode())
        status, next_answer = call()
        answer = f"{seen['spiffe_id']} by {seen['proof']}\n{next_answer}".encode()
        headers = [["content-type", "text/plain"]]
        if seen["sign_response"]:
            response = described({"status": status}, headers, answer)
            _, proof = ask("prove-response", {"request": request, "response": response, "request_nonce": seen["nonce"]})
            headers += proof["headers"]
        self.answer(status, headers, answer)

    def answer(self, status: int, headers: list, body: bytes) -> None:
        self.send_response(status)
        for name, value in headers + [["content-length", str(len(body))]]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def call() -> tuple[int, str]:
    """What the next service answers. Its certificate has its name, by the trust anchors of the own trust domain."""
    folder = os.environ["SPIFFE_CREDENTIAL_FOLDER"]
    with open(f"{folder}/jwt/{urllib.parse.quote(AUDIENCE, safe='')}.token") as token:
        bearer = {"Authorization": f"Bearer {token.read()}"}
    url = urllib.parse.urlsplit(NEXT)
    context = ssl.create_default_context(cafile=f"{folder}/ca.crt")
    connection = http.client.HTTPSConnection(url.hostname, url.port, context=context, timeout=10)
    connection.request("POST", url.path, headers=bearer)
    response = connection.getresponse()
    answer = response.read().decode()
    return (200, answer) if response.status == 200 else (502, f"the next service answers {response.status}\n")


http.server.ThreadingHTTPServer(("", int(PORT)), Service).serve_forever()
