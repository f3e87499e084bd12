"""The web console: splits for people. Rendered on the server, without state."""

from service.console.app import console_routes

__all__ = ["console_routes"]
