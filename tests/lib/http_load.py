"""Run at the lab's gateway: a constant load on a published port, as a client with a list of addresses makes it.

    python http_load.py PORT ADDRESS…     until SIGTERM; then prints {"requests": n, "failed": n, "pages": {body: n}}

A request goes to the next address and, when that refuses or breaks off, to the ones after it; it has failed when
none of them served it. At most 50 requests a second, for at most five minutes.
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
    requests = failed = 0
    pages: Counter[str] = Counter()
    print("started", flush=True)
    end = time.monotonic() + SECONDS_MAX
    while not stopped and time.monotonic() < end:
        turn = requests % len(addresses)
        page = _first(port, addresses[turn:] + addresses[:turn])
        requests += 1
        if page is None:
            failed += 1
        else:
            pages[page] += 1
        time.sleep(PAUSE_SECONDS)
    print(json.dumps({"requests": requests, "failed": failed, "pages": pages}), flush=True)


def _first(port: int, addresses: list[str]) -> str | None:
    for address in addresses:
        connection = http.client.HTTPConnection(address, port, timeout=2)
        try:
            connection.request("GET", "/version")
            response = connection.getresponse()
            body = response.read().decode()
            if response.status == 200:
                return body.strip()
        except OSError:
            continue
        except http.client.HTTPException:
            continue
        finally:
            connection.close()
    return None


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
