"""Chaos: `python -m tests.proof.chaos [--seconds 60] [--seed 7] [--readers 120] [SSE_SOURCE=streams …]`."""

import argparse
import sys

from tests.proof.chaos.run import READERS, main

parser = argparse.ArgumentParser(prog="python -m tests.proof.chaos", description="Faults from a seed, and a verdict.")
parser.add_argument("--seconds", type=float, default=60.0, help="how long the plan is")
parser.add_argument("--seed", type=int, default=7, help="what it is made from")
parser.add_argument("--readers", type=int, default=READERS, help="how many")
parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="settings of the service, beside its own")
arguments = parser.parse_args()
settings = dict(setting.split("=", 1) for setting in arguments.settings)
sys.exit(main(arguments.seconds, arguments.seed, arguments.readers, settings))
