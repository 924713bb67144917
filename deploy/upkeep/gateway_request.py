"""Asks the gateway that runs in the same pod, and prints `[status, JSON]`; the standard library is enough.

The standard input is `{"path", "key", "body"}`; with a body it is a POST.
"""

import json
import os
import sys
import urllib.error
import urllib.request

asked = json.load(sys.stdin)
headers = {"authorization": f"Bearer {asked['key']}", "accept": "application/json"}
data = None
if asked["body"] is not None:
    data = json.dumps(asked["body"]).encode()
    headers["content-type"] = "application/json"
url = f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}{asked['path']}"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(urllib.request.Request(url, data, headers), timeout=15) as answer:
        found = [answer.status, json.load(answer)]
except urllib.error.HTTPError as error:
    found = [error.code, json.load(error)]
sys.stdout.write(json.dumps(found))
