"""Parses PromQL with the parser of promql-parser, for tests/it/admin/dashboard.rs: each argument is an expression.

Says for each what it selects: metric, labels that it matches or groups by, and whether that is taken as a rate.
"""

import json
import sys

import promql_parser as promql

# What makes sense of a counter only.
RATES = {"rate", "irate", "increase", "resets"}


def selected(node, rated, found, labels):
    if isinstance(node, promql.VectorSelector):
        matched = [matcher.name for matcher in node.matchers.matchers]
        found.append({"metric": node.name, "labels": matched, "rated": rated})
    elif isinstance(node, promql.MatrixSelector):
        selected(node.vector_selector, rated, found, labels)
    elif isinstance(node, promql.Call):
        for argument in node.args:
            selected(argument, rated or node.func.name in RATES, found, labels)
    elif isinstance(node, promql.AggregateExpr):
        if node.modifier is not None:
            labels.extend(node.modifier.labels)
        selected(node.expr, rated, found, labels)
    elif isinstance(node, promql.BinaryExpr):
        selected(node.lhs, rated, found, labels)
        selected(node.rhs, rated, found, labels)
    elif isinstance(node, (promql.ParenExpr, promql.UnaryExpr, promql.SubqueryExpr)):
        selected(node.expr, rated, found, labels)
    elif not isinstance(node, (promql.NumberLiteral, promql.StringLiteral)):
        raise TypeError(f"what is a {type(node).__name__}?")


for expression in sys.argv[1:]:
    found, labels = [], []
    selected(promql.parse(expression), False, found, labels)
    print(json.dumps({"selected": found, "grouped": labels}), flush=True)
