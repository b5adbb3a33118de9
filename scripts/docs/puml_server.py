"""A PlantUML server for editors, in front of a local plantuml too old to have one: python3 puml_server.py PORT.

It answers what their previews ask: GET /svg/ENCODED and /png/ENCODED (with or without a page number between), where
ENCODED is the diagram, deflated, in PlantUML's own base64; and POST /svg or /png with the diagram as the body.
"""

import base64
import http.server
import string
import subprocess
import sys
import zlib

TYPES = {"svg": "image/svg+xml", "png": "image/png", "txt": "text/plain; charset=utf-8"}
ORDINARY = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
PLANTUML = string.digits + string.ascii_uppercase + string.ascii_lowercase + "-_"
TO_ORDINARY = str.maketrans(PLANTUML, ORDINARY)


def decode(encoded):
    encoded = encoded.removeprefix("~1").translate(TO_ORDINARY)
    deflated = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        parts = self.path.strip("/").split("/")
        if parts == [""]:
            return self.answer(200, "text/plain", b"A PlantUML server: /svg/ENCODED, /png/ENCODED\n")
        try:
            self.draw(parts[0], decode(parts[-1]))
        except (ValueError, zlib.error):
            self.answer(400, "text/plain", b"not an encoded diagram\n")

    def do_POST(self):
        self.draw(self.path.strip("/"), self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def draw(self, kind, source):
        if kind not in TYPES:
            return self.answer(404, "text/plain", b"unknown path\n")
        # A diagram with an error in it is drawn as a picture of the error, which is what the editor should show.
        command = ["plantuml", "-pipe", "-charset", "UTF-8", "-t" + kind]
        drawn = subprocess.run(command, input=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.answer(200, TYPES[kind], drawn.stdout)

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    try:
        http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    except KeyboardInterrupt:
        pass
