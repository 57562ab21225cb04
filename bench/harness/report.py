"""From runs to tables: medians over the rounds, and every error."""

import collections
from statistics import median

# Those of which it is told that they opened connections to the backend.
PROXIES = ("nginx", "haproxy", "tinylb")

# Above these a run is told of below its table.
DISTURBED = 0.03
CONNECTIONS_KEPT = 0.01
# And below this one.
LOGGED = 0.999


def summary(runs):
    """The median of every figure, and the sum of every error."""
    good = [run for run in runs if "failed" not in run]
    result = {"runs": runs, "errors": {}, "failed": [r["failed"] for r in runs if "failed" in r]}
    for run in runs:
        for kind, number in run.get("errors", {}).items():
            result["errors"][kind] = result["errors"].get(kind, 0) + number
    for key in good[0] if good else []:
        if key != "errors":
            result[key] = median(run[key] for run in good)
    return result


def has_errors(result):
    return bool(result["failed"]) or any(result["errors"].values())


def load_table(case, results):
    """`results`: proxy name to summary, in the order of the rows."""
    floor = results.get(case.floor, {}).get("cpu_us")
    head = ["", "requests/s", "core", "user µs", "system µs", "CPU µs/request", f"× {case.floor}"]
    head += ["p50", "p99", "errors"]
    rows = []
    for name, result in results.items():
        if "requests_per_second" not in result:
            rows.append([name] + ["–"] * 8 + [_errors(result)])
            continue
        cpu = result.get("cpu_us")
        rows.append([
            name,
            f"{result['requests_per_second']:,.0f}",
            f"{result['core_used']:.0%}" if cpu else "–",
            _number(result.get("user_us")),
            _number(result.get("system_us")),
            _number(cpu),
            f"{cpu / floor:.2f}" if cpu and floor else "–",
            _latency(result["p50_us"]),
            _latency(result["p99_us"]),
            _errors(result),
        ])
    return table(case.title, head, rows) + _notes(case, results)


def idle_table(case, count, results):
    head = ["", "before", "after", "bytes/connection", "errors"]
    rows = []
    for name, result in results.items():
        if "before_bytes" not in result:
            rows.append([name, "–", "–", "–", _errors(result)])
            continue
        rows.append([
            name,
            f"{result['before_bytes'] / 1024:,.0f} KiB",
            f"{result['after_bytes'] / 1024:,.0f} KiB",
            f"{result['bytes_per_connection']:,.0f}",
            _errors(result),
        ])
    return table(f"{case.title}, {count:,} of them", head, rows) + _notes(case, results)


def _notes(case, results):
    notes = [case.note] if case.note else []
    waited = {}
    for name, result in results.items():
        if "cannot" in result:
            notes.append(result["cannot"])
        for reason in dict.fromkeys(result["failed"]):
            notes.append(reason if reason.startswith(name) else f"{name}: {reason}")
        opened = result.get("backend_connections_per_request", 0)
        if opened > CONNECTIONS_KEPT and name in PROXIES:
            notes.append(f"{name} opened {opened:.2f} backend connections per request.")
        if result.get("logged", 1) < LOGGED:
            notes.append(f"{name} logged {result['logged']:.1%} of its requests.")
        waited[name] = max((run.get("core_waited", 0) for run in result["runs"]), default=0)
    disturbed = [f"{name} {share:.0%}" for name, share in waited.items() if share > DISTURBED]
    if disturbed:
        notes.append(
            "Disturbed: something else ran on the proxies' core. Time spent waiting for it, in the"
            f" worst round: {', '.join(disturbed)}."
        )
    return "".join(f"\n{note}\n" for note in notes)


def table(title, head, rows):
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells):
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "| " + "-" * widths[0] + " | "
    rule += " | ".join("-" * (width - 1) + ":" for width in widths[1:]) + " |"
    return "\n".join([f"### {title}", "", line(head), rule, *map(line, rows)]) + "\n"


def percentiles(histograms, shares, beyond=0):
    """For each of the `shares`, the time that so many took at most, from lists of (time, count). `beyond`
    counts those that took longer than all of these; a share that reaches them has no time."""
    times = collections.Counter()
    for histogram in histograms:
        for time, count in histogram:
            times[time] += count
    total, seen, reached = sum(times.values()) + beyond, 0, []
    for time in sorted(times):
        seen += times[time]
        reached.append((seen, time))
    return [next((time for seen, time in reached if seen >= share * total), None) for share in shares]


def _number(value):
    return "–" if value is None else f"{value:,.1f}"


def _latency(microseconds):
    return f"{microseconds / 1000:.2f} ms"


def _errors(result):
    if "cannot" in result:
        return "–"
    kinds = [f"{number} {kind}" for kind, number in result["errors"].items() if number]
    if result["failed"]:
        kinds.append(f"{len(result['failed'])} failed")
    return ", ".join(kinds) or "none"
