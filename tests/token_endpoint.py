"""The token endpoint of an identity provider on 127.0.0.1, for clients of Kafka (OAUTHBEARER)."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

AUDIENCE = "kafka"
SECRET = "throw-away-client-secret"


class TokenEndpoint:
    """Gives each client that knows the secret a token of its own name, for `audience`.

    Attributes:
        keys: file with the public keys (JWKS), for the broker.
    """

    def __init__(self, keys: Path) -> None:
        self.audience = AUDIENCE
        self.keys = keys
        key = RSAKey.generate_key(2048, {"kid": "1", "use": "sig", "alg": "RS256"})
        keys.write_text(json.dumps(KeySet([key]).as_dict(private=False)))
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                given = self.headers["Authorization"].removeprefix("Basic ")
                client, _, secret = base64.b64decode(given).decode().partition(":")
                answer = {"error": "invalid_client"}
                if secret == SECRET:
                    now = int(time.time())
                    claims = {"sub": client, "aud": endpoint.audience, "scope": "kafka"}
                    claims |= {"iss": endpoint.url, "iat": now, "exp": now + 300}
                    token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, key)
                    answer = {"access_token": token, "token_type": "Bearer", "expires_in": "300"}
                body = json.dumps(answer).encode()
                self.send_response(200 if secret == SECRET else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
