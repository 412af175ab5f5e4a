#!/usr/bin/env python3
"""Compares two packages that a kfp SDK compiled, but for the time of their compilation.

usage: compare_packages.py COMMITTED COMPILED
"""
import difflib
import sys

import yaml

COMPILED_AT = "pipelines.kubeflow.org/pipeline_compilation_time"


def lines(path):
    with open(path) as file:
        documents = list(yaml.safe_load_all(file))
    for document in documents:
        document.get("metadata", {}).get("annotations", {}).pop(COMPILED_AT, None)
    return yaml.safe_dump_all(documents).splitlines()


def main():
    committed, compiled = sys.argv[1:]
    difference = list(difflib.unified_diff(lines(committed), lines(compiled), committed, compiled, lineterm=""))
    print("\n".join(difference) or f"{committed} is up to date")
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main())
