"""RFC 3161 time-stamps: an authority's word that a signature was there at a time.

The signing library asks for the stamp itself and would wait without end. So it asks a relay on this machine's own
loopback, alive for one signature, which passes the question on to the one address that was named: with a limit on
time and size, without redirects, and with the reason where no stamp can be had.
"""

import http.client
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from ..errors import SidecarError
from ..printable import printable

SECONDS = 10.0  # for the whole answer
_MOST = 64 << 10  # bytes of a question or an answer; usual ones have 6 KiB
_QUERY, _REPLY = "application/timestamp-query", "application/timestamp-reply"


class Relay:
    """What passes questions on to a time authority.

    Attributes:
        address: Where it listens, for the signing library.
        reason: Why no stamp could be had, or None.
        asked: Whether it was asked for a stamp.
    """

    def __init__(self, authority: str, seconds: float):
        self.authority, self.seconds = authority, seconds
        self.reason: str | None = None
        self.asked = False
        self.path = f"/{secrets.token_urlsafe(16)}"  # so that nobody else on this machine can use it
        self.address = ""

    def answer(self, question: bytes) -> bytes | None:
        """Returns the authority's answer to a question, or None with `reason` set."""
        self.asked = True
        try:
            return self._answer(question)
        except urllib.error.HTTPError as error:
            self.reason = f"the time authority answers with HTTP status {error.code}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)
            what = (
                f"does not answer within {self.seconds:g} seconds" if late else f"cannot be asked ({printable(error)})"
            )
            self.reason = f"the time authority {what}"
        return None

    def _answer(self, question: bytes) -> bytes:
        until = time.monotonic() + self.seconds
        request = urllib.request.Request(self.authority, question, {"Content-Type": _QUERY, "Accept": _REPLY})
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(request, timeout=self.seconds) as response:
            kind = response.headers.get_content_type()
            if kind != _REPLY:
                raise ValueError(f"it answers with {printable(kind, 60)}")
            parts, size = [], 0
            while part := response.read1(_MOST):
                parts.append(part)
                size += len(part)
                if size > _MOST:
                    raise ValueError("its answer is too large")
                if time.monotonic() > until:
                    raise TimeoutError
        return b"".join(parts)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        return None


@contextmanager
def relayed(authority: str, *, seconds: float = SECONDS) -> Iterator[Relay]:
    """Yields a relay to a time authority that listens on loopback until the block ends.

    Args:
        authority: Its http or https address.
        seconds: How long the authority may take.

    Raises:
        SidecarError: No port on loopback can be had.
    """
    relay = Relay(authority, seconds)

    class Handler(BaseHTTPRequestHandler):
        timeout = seconds

        def do_POST(self) -> None:
            answer = None
            with suppress(ValueError):
                size = int(self.headers.get("Content-Length", ""))
                if self.path == relay.path and 0 < size <= _MOST:
                    answer = relay.answer(self.rfile.read(size))
            self.send_response(200 if answer is not None else 502)
            self.send_header("Content-Type", _REPLY)
            self.send_header("Content-Length", str(len(answer or b"")))
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    try:
        server = HTTPServer(("127.0.0.1", 0), Handler)
    except OSError as error:
        raise SidecarError(f"no time-stamp can be asked for: no port on loopback ({error.strerror})") from error
    relay.address = f"http://127.0.0.1:{server.server_address[1]}{relay.path}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        server.shutdown()
        server.server_close()
        thread.join(seconds)
