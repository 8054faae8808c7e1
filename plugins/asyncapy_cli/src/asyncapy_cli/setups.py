"""The functions that may register handlers when a server starts, which commands that start none do not see."""

from __future__ import annotations

from asyncapy_core import Server


def setups_of(server: Server) -> list[str]:
    """Return the names of the plugins with a setup, and of the setup of the server, if it has one."""
    plugins = [
        record.title
        for record in server.plugins.plugins
        if record.state == "loaded" and "asyncapy_setup" in record.implementations
    ]
    return plugins + ["the server's setup()"] * (type(server).setup is not Server.setup or "setup" in vars(server))


def unseen(server: Server) -> str:
    """Return a note about the handlers that are not seen without a setup; empty if there can be none."""
    names = setups_of(server)
    if not names:
        return ""
    return (
        f"note: {' and '.join(names)} may register handlers and guards when the server starts, which are not shown; "
        "see them with --setup"
    )
