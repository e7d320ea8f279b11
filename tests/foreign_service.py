"""A service that really measures, and the same as an MCP server: over stdio, or over HTTP at the port that is given."""

from __future__ import annotations

import base64
import sys
import time
from typing import Any

import numpy as np

from fovea.jsonable import to_json
from fovea.types import Mask, Patch


def respond(asked: dict, pixels: bytes, valid: bytes) -> dict:
    """A service that really measures: opacity is what lies above 2000, a device above 2900."""
    shape = tuple(asked["grid"]["shape"])
    values = np.frombuffer(pixels, "<f4").reshape(len(asked["channels"]), *shape)[0]
    known = np.frombuffer(valid, np.uint8).reshape(shape).astype(bool)
    found = []
    for label in asked["labels"]:
        mask = (values > {"opacity": 2000, "device": 2900}[label]) & known
        here = {"present": True, "score": 0.9, "region": to_json(Mask(mask)), "location": "left"}
        instance = {"region": to_json(Patch((0, 0, 0), mask)), "score": 0.8}
        measures = [{"name": "count", "value": 1, "unit": "1"}]
        entry = (
            {**here, "measures": measures, "instances": [instance]} if mask.any() else {"present": False, "score": 0.1}
        )
        found.append({"label": label, **entry})
    return {"version": "7", "findings": found}


def main(port: str = "") -> None:
    """Serve three tools: one that answers, one that sleeps, and one that fails."""
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("tiny")

    @server.tool(structured_output=True)
    def find(
        labels: list[str], channels: list[dict[str, Any]], grid: dict[str, Any], pixels: str, valid: str
    ) -> dict[str, Any]:
        asked = {"labels": labels, "channels": channels, "grid": grid}
        return respond(asked, base64.b64decode(pixels), base64.b64decode(valid))

    @server.tool(structured_output=True)
    def sleepy(argument: str) -> dict[str, Any]:
        time.sleep(5)
        return {"argument": argument}

    @server.tool(structured_output=True)
    def broken(argument: str) -> dict[str, Any]:
        raise RuntimeError("secret")

    if port:
        server.run("streamable-http", host="127.0.0.1", port=int(port))
    else:
        server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
