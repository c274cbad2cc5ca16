"""The contract over HTTP: ``GET /openapi.json`` for programs, ``GET /docs`` for people, from one document."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from preprocessing.page import environment
from serve.books import Books
from serve.openapi import document


def document_routes(books: Books) -> list[Route]:
    """The routes; neither asks for a key, since neither tells anything of this service's data."""
    made = document(is_open=books.is_open)
    templates = environment(Path(__file__).parent / "templates")
    page = templates.get_template("docs.html").render(document=made, schemas=made["components"]["schemas"])

    async def openapi(request: Request) -> Response:
        return JSONResponse(made)

    async def docs(request: Request) -> Response:
        return HTMLResponse(page)

    return [Route("/openapi.json", openapi, methods=["GET"]), Route("/docs", docs, methods=["GET"])]
