"""FastAPI on uvicorn: an endpoint with a pydantic model sends the body back. httptools and uvloop are on."""

from fastapi import FastAPI
from pydantic import BaseModel
from serving import serve

application = FastAPI()


class Echo(BaseModel):
    """The body of a request."""

    test: int


@application.post("/")
async def echo(body: Echo) -> Echo:
    """Send the body back."""
    return body


serve(application)
