#!/usr/bin/env python3
"""VictoriaMetrics' web page in front of a VictoriaMetrics that was built without it, as Debian's is.

    vmui.py FOLDER URL PORT     serves FOLDER under http://127.0.0.1:PORT/vmui/, all else from URL
"""

import http.server
import sys
import urllib.error
import urllib.request

folder, server, port = sys.argv[1:]


class Page(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args):
        super().__init__(*args, directory=folder)

    def do_GET(self):
        if self.path.startswith("/vmui/"):
            self.path = self.path.removeprefix("/vmui")
            super().do_GET()
        else:
            self.forward(None)

    def do_POST(self):
        self.forward(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def forward(self, body):
        headers = {"Content-Type": self.headers.get("Content-Type", "text/plain")}
        try:
            answer = urllib.request.urlopen(urllib.request.Request(server + self.path, body, headers))
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Page).serve_forever()
