"""The same predictor behind LitServe, one worker and batches of 16: `benchmarks.rivals` starts it."""

import sys
from typing import Any

import litserve
import numpy as np

from benchmarks.rivals import load_predictor
from serve.protocol import answer

BATCH_SIZE = 16


class Api(litserve.LitAPI):
    """LitServe's own hooks, all of which its worker calls; it takes files in forms alone."""

    def setup(self, device: str) -> None:
        self.predictor = load_predictor(sys.argv[2])

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # another annotation would be its JSON schema
        return np.asarray(self.predictor.reader.read(request["file"].file.read()).pixels)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, pixels: np.ndarray) -> list[Any]:
        return list(self.predictor.predict(pixels, np.ones(len(pixels), bool)))

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        return answer(output)


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(max_batch_size=BATCH_SIZE, batch_timeout=0.0, api_path="/v1/score"), accelerator="cpu", workers_per_device=1
    )
    server.run(port=int(sys.argv[3]), host="127.0.0.1", generate_client_file=False, log_level="warning")
