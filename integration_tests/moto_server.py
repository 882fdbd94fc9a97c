"""moto's server, one request at a time: `moto_server.py PORT`.

Its own `moto_server` loses records when two requests write to one shard at the same moment: both get the same sequence number, and
the second record takes the place of the first ("this function is not safe for concurrency", says moto's `Shard.put_record`).
"""

import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

app = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()


def one_at_a_time(environ, start_response):
    with lock:
        return list(app(environ, start_response))


run_simple("127.0.0.1", int(sys.argv[1]), one_at_a_time, threaded=True, request_handler=MotoRequestHandler)
