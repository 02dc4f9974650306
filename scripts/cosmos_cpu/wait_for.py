"""Wait until Cosmos-RL's controller answers, as long as its process lives: `wait_for.py PID`."""

import os
import sys
import time
import urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
while True:
    os.kill(int(sys.argv[1]), 0)  # raises once it has ended
    try:
        opener.open(f"http://{os.environ['COSMOS_CONTROLLER_HOST']}/api/meta", timeout=5)
        break
    except OSError:
        time.sleep(0.5)
