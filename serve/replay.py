"""A request whose body was read already, to be given to a second reader."""

from starlette.requests import Request
from starlette.types import Message


def replayed(request: Request, body: bytes) -> Request:
    """The same request with its body still to be read."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await request.receive()

    return Request(request.scope, receive)
