"""Run at the lab's gateway: a constant load on a published port, as a client with a list of addresses makes it.

    python http_load.py PORT ADDRESS…     until SIGTERM; then prints {"requests": n, "failed": […], "pages": {body: n}}

A request goes to the next address and, when that refuses or breaks off, to the ones after it; it has failed when
none of them served it, and is reported with what each of them did and when, in seconds since the start. At most 50
requests a second, for at most five minutes.
"""

import http.client
import json
import signal
import sys
import time
from collections import Counter

PAUSE_SECONDS = 0.02
SECONDS_MAX = 300


def main(port: int, addresses: list[str]) -> None:
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    requests = 0
    failed: list[list[str]] = []
    pages: Counter[str] = Counter()
    print("started", flush=True)
    start = time.monotonic()
    while not stopped and time.monotonic() < start + SECONDS_MAX:
        turn = requests % len(addresses)
        requests += 1
        refusals = []
        for address in addresses[turn:] + addresses[:turn]:
            try:
                pages[_page(address, port)] += 1
                break
            except (OSError, http.client.HTTPException) as error:
                refusals.append(f"{time.monotonic() - start:.3f} {address}: {error!r}")
        else:
            failed.append(refusals)
        time.sleep(PAUSE_SECONDS)
    print(json.dumps({"requests": requests, "failed": failed, "pages": pages}), flush=True)


def _page(address: str, port: int) -> str:
    """Fetch the page that says which version answered. Raises OSError or HTTPException."""
    connection = http.client.HTTPConnection(address, port, timeout=2)
    try:
        connection.request("GET", "/version")
        response = connection.getresponse()
        body = response.read().decode()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise http.client.HTTPException(f"status {response.status}: {body}")
    return body.strip()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
