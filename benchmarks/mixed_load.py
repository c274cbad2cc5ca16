"""Mixed traffic on a service: scores with and without a subject, looks at predictions, readings, versions."""

import http.client
import json
import random
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

RETRY_S = 60.0
"""A request that failed is sent again for so long."""
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Sent:
    """One request."""

    begun: float
    """``time.monotonic()``."""
    ended: float
    """Of the first attempt."""
    settled: float
    """End of the last attempt."""
    is_answered: bool
    """With 2xx, at the first attempt."""
    is_answered_at_last: bool
    said: str
    """What came instead at the first attempt."""
    prediction_id: str | None
    """Of an accepted prediction."""

    @property
    def seconds(self) -> float:
        """That the first attempt took."""
        return self.ended - self.begun


class Traffic:
    """Clients that each send one request after the other.

    Args:
        port: Of the service, on loopback.
        images: Encoded radiographs, taken in turn.
        clients: How many.
    """

    def __init__(self, port: int, images: list[bytes], clients: int) -> None:
        self._port, self._images, self._num_clients = port, images, clients
        self._sent: list[Sent] = []
        self._is_over = False

    def run(self, seconds: float, until: threading.Thread) -> list[Sent]:
        """Send for so long, and in any case until a thread has ended and five seconds more."""
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(self._num_clients)]
        end = time.monotonic() + seconds
        for thread in threads:
            thread.start()
        until.join()
        time.sleep(max(5.0, end - time.monotonic()))
        self._is_over = True
        for thread in threads:
            thread.join()
        return self._sent

    def _client(self, number: int) -> None:
        choice = random.Random(number)
        known: list[str] = []
        while not self._is_over:
            kind = choice.random()
            if kind < 0.7 or not known:
                subject = f"&subject=s{choice.randrange(500)}" if choice.random() < 0.8 else ""
                path = f"/v1/score?sex={choice.choice(['male', 'female'])}{subject}"
                sent = self._send("POST", path, choice.choice(self._images))
                known += [sent.prediction_id] if sent.prediction_id else []
            elif kind < 0.8:
                sent = self._send("GET", f"/v1/predictions/{choice.choice(known)}")
            elif kind < 0.9:
                body = json.dumps({"bone_age_months": choice.randrange(240), "reader": f"r{number}"}).encode()
                sent = self._send("POST", f"/v1/predictions/{choice.choice(known)}/reference", body)
            else:
                sent = self._send("GET", "/v1/versions")
            self._sent.append(sent)

    def _send(self, method: str, path: str, body: bytes = b"") -> Sent:
        headers = {"Idempotency-Key": uuid.uuid4().hex} if path.startswith("/v1/score") else {}
        begun = time.monotonic()
        status, answer = _once(self._port, method, path, body, headers)
        ended = time.monotonic()
        first = status
        while not 200 <= status < 300 and time.monotonic() - ended < RETRY_S:
            time.sleep(0.2)
            status, answer = _once(self._port, method, path, body, headers)
        is_score = path.startswith("/v1/score") and 200 <= status < 300
        return Sent(
            begun,
            ended,
            time.monotonic(),
            200 <= first < 300,
            200 <= status < 300,
            str(first),
            answer["prediction_id"] if is_score else None,
        )

    @staticmethod
    def ask(port: int, method: str, path: str) -> dict[str, Any] | None:
        """The answer to one request, whatever its status; None without one."""
        _, answer = _once(port, method, path, b"", {})
        return answer or None


def _once(port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Status and JSON; status 0 where the connection failed or something else than JSON came with a success."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        data = response.read()
        try:
            return response.status, json.loads(data)
        except ValueError:
            return (response.status if response.status >= 400 else 0), {}
    except (OSError, http.client.HTTPException):
        return 0, {}
    finally:
        connection.close()
