"""What ``webhook`` runs as a parent: asks its own server for each child, sixteen at a time."""

import concurrent.futures
import http.client
import os
import sys


def call(_number):
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["PORT"]))
    connection.request("POST", "/hooks/trivial")
    assert connection.getresponse().read() == b"DONE\n"


with concurrent.futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(call, range(int(sys.argv[1]))))
print("DONE")
