"""Asking a server on this machine whether it is up, past any proxy that the environment names."""

from __future__ import annotations

import http.client
import urllib.request

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(url: str, *, timeout: float = 2.0) -> bool:
    """Returns whether a GET of `url` is answered with success."""
    try:
        with DIRECT.open(url, timeout=timeout) as response:
            return 200 <= int(response.status) < 300
    except (OSError, ValueError, http.client.HTTPException):  # refused, timed out, or no HTTP yet
        return False
