"""Which crate has the cost: profiles of callgrind and of perf, added up."""

import re
import subprocess
from collections import Counter

CRATE_FILE = re.compile(r"/registry/src/[^/]+/([A-Za-z0-9_-]+?)-\d[^/]*/")
STD_FILE = re.compile(r"library/(std|core|alloc)/|/rustc/")

# The first word of a path: `h2::…`, `<h2::… as …>`, `<&mut h2::…`, `core::ptr::drop_in_place<h2::…>`.
ROOT = re.compile(r"(?:core::ptr::drop_in_place(?:::)?)?[<(&\[]*(?:mut |dyn )?([A-Za-z_][A-Za-z0-9_]*)::")
OWN = "own"  # Sources that come from no registry.
C_LIBRARY = "C library"
SYSTEM = "kernel"
OTHER = "other"


def by_callgrind(path):
    """Instructions of each crate. Code belongs to the file that it was written in, wherever it was
    inlined; but what the standard library and the C library do (moving bytes, memory) belongs to whoever
    had it done."""
    return _Callgrind().read(path)


class _Callgrind:
    """Reads the format: https://valgrind.org/docs/manual/cl-format.html."""

    def __init__(self):
        self.costs = Counter()
        self.names = {}  # Files, objects and functions have a number once they were named.
        self.object = self.file = self.function = ""
        self.callee_object = ""  # where it is not the caller's
        self.called = None  # The object of a call whose cost comes next.

    def read(self, path):
        with open(path, errors="replace") as file:
            for line in file:
                self._line(line.rstrip("\n"))
        return self.costs

    def _line(self, line):
        key, equals, value = line.partition("=")
        if line and line[0] in "+-*0123456789":
            self._cost(int(line.split()[-1]))
        elif not equals:
            return
        elif key == "ob":
            self.object = self._name("ob", value)
        elif key == "fl":
            self.file = self._name("fl", value)
        elif key in ("fi", "fe"):
            self.file = self._name("fl", value)
        elif key == "fn":
            self.function = self._name("fn", value)
        elif key == "cob":
            self.callee_object = self._name("ob", value)
        elif key in ("cfi", "cfl"):
            self._name("fl", value)
        elif key == "cfn":
            self._name("fn", value)
        elif key == "calls":
            # The line that follows has what the call cost, all that it called included.
            self.called, self.callee_object = self.callee_object or self.object, ""

    def _name(self, kind, value):
        number, _, name = value.partition(" ")
        if not number.startswith("("):
            return value
        if name:
            self.names[kind, number] = name
        return self.names.get((kind, number), "")

    def _cost(self, cost):
        called, self.called = self.called, None
        if called is None:
            if not _is_c_library(self.object):
                self.costs[self._owner()] += cost
        elif _is_c_library(called) and not _is_c_library(self.object):
            self.costs[self._owner()] += cost

    def _owner(self):
        if found := CRATE_FILE.search(self.file):
            return found[1]
        if STD_FILE.search(self.file) or not self.file.endswith(".rs"):
            return crate_of(self.function)
        return OWN


def _is_c_library(name):
    return "/libc.so" in name or "/libc-" in name or "/ld-linux" in name


def crate_of(function):
    """The crate that a function was compiled for, by its name."""
    if function.startswith("aws_lc_"):
        return "aws-lc-sys"
    found = ROOT.match(function)
    return found[1].replace("_", "-") if found else OTHER


def by_perf(path):
    """Samples of each crate, by the function they were in: what is inlined into another crate's function
    counts for that one. The kernel and the C library stand for themselves."""
    command = ["perf", "script", "--input", path, "--fields", "ip,sym,dso"]
    said = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout
    costs = Counter()
    for line in said.splitlines():
        found = re.match(r"\s*[0-9a-f]+ (.*) \((.*)\)$", line)
        if not found:
            continue
        symbol, place = found.groups()
        if place.startswith("[kernel") or place.endswith(".ko"):
            costs[SYSTEM] += 1
        elif _is_c_library(place):
            costs[C_LIBRARY] += 1
        else:
            costs[crate_of(symbol)] += 1
    return costs
