"""Reads a hop's figures with the parsers of Python's prometheus_client, for tests/it/admin.rs.

Says for each of the two formats what the answer calls it, and its families: name, type, and samples by their names and labels.
"""

import json
import sys
import urllib.request

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser as prometheus

# That of Prometheus 3, and that of a browser.
ACCEPTS = [
    (
        openmetrics,
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
        "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    ),
    (prometheus, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
]

for parser, accept in ACCEPTS:
    request = urllib.request.Request(sys.argv[1], headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        families = list(parser.text_string_to_metric_families(answer.read().decode()))
        said = {
            "type": answer.headers["Content-Type"],
            "families": {
                family.name: {
                    "type": family.type,
                    "help": family.documentation,
                    "samples": [
                        [sample.name, sample.labels, sample.value]
                        for sample in family.samples
                    ],
                }
                for family in families
            },
        }
        # A name that is there twice would be here once.
        assert len(said["families"]) == len(families), families
        print(json.dumps(said), flush=True)
