"""What the clients saw, counted and judged."""

import collections
from statistics import median

from .report import percentiles, table
from .resilience import VARIANTS

# The load is even when no backend's share is further from its due than this. With the 900 answers of a
# window, chance alone moves a share by 1.4 % (one standard deviation).
TOLERANCE = 0.06
WINDOW = 2.0
SLOT = 0.25  # as the clients count

# Above these a run was disturbed: tries that take a second can be the machine's fault.
LATE = 0.2
WAITED = 0.1
# And so was one whose pairs were not killed within this time.
APART = 0.001


def judge(name, outcome, events, options, backends):
    """Figures of a run, and `faults`: what must not have been, in words."""
    variant, reports = VARIANTS[name], outcome["reports"]
    failed = [dict(failure, at=_shifted(failure["at"], report, outcome))
              for report in reports for failure in report["failed"]]
    failed.sort(key=lambda failure: failure["at"])
    mixed = [failure for failure in failed if failure["kind"] == "mixed up"]
    rest = [failure for failure in failed if failure["kind"] != "mixed up"]
    idempotent = [failure for failure in rest if failure["method"] != "POST"]
    whole = [failure for failure in idempotent if failure["kind"] != "cut"]
    posts = [failure for failure in rest if failure["method"] == "POST"]
    result = {
        "requests": sum(sum(report["requests"].values()) for report in reports),
        "answered": sum(sum(report["answered"].values()) for report in reports),
        "idempotent_failed": len(idempotent),
        "cut": len(idempotent) - len(whole),
        "posts_failed": len(posts),
        "posts_twice": outcome["posts_twice"],
        "mixed_up": len(mixed),
        "reasons": {"GET and PUT": _reasons(idempotent), "POST": _reasons(posts)},
        "retries": outcome["retries"],
        "worst": _worst(reports, outcome, "idempotent"),
        "worst_post": _worst(reports, outcome, "posts"),
        "pairs": outcome["pairs"],
        "late": outcome["late"],
        "waited": outcome["waited"],
        "mixed": mixed,
        "failed": failed,
    }
    if options.case == "storm":
        result["even_after"] = even_after(outcome, events, options, backends)
    # Of GETs and PUTs.
    steps = [report["idempotent"]["steps"] for report in reports]
    result |= dict(zip(("p50", "p99", "p999"), percentiles(steps, (0.5, 0.99, 0.999))))

    faults = list(outcome["faults"])
    if mixed:
        faults.append(f"{len(mixed)} answers were mixed up, the first: {mixed[0]['detail']}")
    if variant.ours:
        blamed = idempotent if variant.holds else whole
        if blamed:
            faults.append(f"{len(blamed)} requests failed that could have been sent again")
        if result["posts_twice"]:
            faults.append(f"{result['posts_twice']} POSTs were sent to a second backend")
        if options.case == "storm" and result["even_after"] is None:
            faults.append(f"the load was not even again within {options.even_within:g} s")
    return result | {"faults": faults}


def _worst(reports, outcome, which):
    """How long the slowest took, and when it was due."""
    report = max(reports, key=lambda report: report[which]["worst"])
    return report[which]["worst"], _shifted(report[which]["worst_at"], report, outcome)


def _shifted(at, report, outcome):
    """A client's time as the run's."""
    return round(at + report["started"] - outcome["began"], 3)


def _reasons(failures):
    return dict(collections.Counter(failure["kind"] for failure in failures).most_common())


def even_after(outcome, events, options, backends):
    """Seconds from the last event's end until the load was even and stayed so; nothing if too many."""
    calm = outcome["began"] + max((event.end for event in events), default=0)
    slots = collections.defaultdict(collections.Counter)
    for report in outcome["reports"]:
        for at, backend, count in report["slots"]:
            slots[round((report["started"] + at - calm) / SLOT)][backend] += count
    length = round(WINDOW / SLOT)
    last = round((outcome["began"] + options.seconds - calm) / SLOT) - length
    uneven = [first for first in range(0, last + 1)
              if not _even(sum((slots[first + n] for n in range(length)), collections.Counter()),
                           options.rate, backends)]
    after = (max(uneven) + 1) * SLOT if uneven else 0.0
    return after if after <= options.even_within else None


def _even(counts, rate, backends):
    total = sum(counts.values())
    if total < rate * WINDOW / 2:
        return False
    shares = [counts[f"b{n + 1}"] / total for n in range(backends)]
    return all(abs(share - 1 / backends) <= TOLERANCE for share in shares)


def summary(results):
    """The table of all proxies, and a few lines about each."""
    head = ["", "requests", "2xx", "idempotent failed", "without cut", "POSTs failed", "POSTs twice",
            "mixed up", "retries", "p50", "p99", "p99.9", "worst", "worst POST", "even after"]
    rows = []
    for name, result in results.items():
        if "requests" not in result:
            rows.append([name, *["–"] * (len(head) - 1)])
            continue
        retries = result["retries"]
        even = result["even_after"]
        rows.append([
            name,
            f"{result['requests']:,}",
            f"{result['answered']:,}",
            f"{result['idempotent_failed']:,}",
            f"{result['idempotent_failed'] - result['cut']:,}",
            f"{result['posts_failed']:,}",
            f"{result['posts_twice']:,}",
            f"{result['mixed_up']:,}",
            "–" if retries is None else f"{sum(retries.values()):,}",
            *(_time(result[key]) for key in ("p50", "p99", "p999")),
            *(_time(result[key][0]) for key in ("worst", "worst_post")),
            "not" if even is None else f"{even:.1f} s",
        ])
    return table("Requests while backends fell ill", head, rows)


def pairs_summary(runs, tries):
    """The table of the case pair-kill: all seeds together, a line for each proxy. `runs` has the results of
    each seed."""
    head = ["", "seeds", "pairs", "requests", "2xx", "answer had begun", "others", "seeds with others",
            "POSTs failed", "POSTs twice", "mixed up", "retries", "p50", "p99", "worst"]
    rows = []
    for name in {name: None for results in runs for name in results}:
        ran = [results[name] for results in runs if "requests" in results.get(name, {})]
        if not ran:
            rows.append([name, *["–"] * (len(head) - 1)])
            continue
        others = [result["idempotent_failed"] - result["cut"] for result in ran]
        retries = [sum((result["retries"] or {}).values()) for result in ran]
        rows.append([
            name, f"{len(ran)}", f"{sum(len(result['pairs']) for result in ran)}",
            *(_total(ran, key) for key in ("requests", "answered", "cut")),
            f"{sum(others):,}", f"{sum(map(bool, others))}",
            *(_total(ran, key) for key in ("posts_failed", "posts_twice", "mixed_up")),
            f"{sum(retries):,}",
            _time(median(result["p50"] for result in ran)),
            _time(median(result["p99"] for result in ran)),
            _time(max(result["worst"][0] for result in ran)),
        ])
    title = f"Idempotent requests that failed while pairs of backends were killed, {tries} tries each"
    return table(title, head, rows)


def _total(results, key):
    return f"{sum(result[key] for result in results):,}"


def details(name, result, events):
    """Lines below the table: reasons, and where it matters the first failures with what was wrong then."""
    lines = []
    for methods, reasons in result.get("reasons", {}).items():
        if reasons:
            each = ", ".join(f"{count} {kind}" for kind, count in reasons.items())
            lines.append(f"{name}, {methods} failed: {each}")
    if result.get("retries"):
        each = ", ".join(f"{count} {kind}" for kind, count in result["retries"].items())
        lines.append(f"{name}, tried again: {each}")
    late, waited = result.get("late", 0), result.get("waited", 0)
    if late > LATE or waited > WAITED:
        lines.append(f"{name}, disturbed: other work ran on the machine. The proxy waited for a core"
                     f" {waited:.0%} of the time, and this program for {late:.1f} s at worst.")
    if max(result.get("pairs", []), default=0) > APART:
        lines.append(f"{name}, disturbed: a pair was killed {max(result['pairs']) * 1000:.1f} ms apart.")
    lines += [f"FAULT: {name}: {fault}" for fault in result["faults"]]
    if result["faults"]:
        lines += [_told(failure, events) for failure in _blamed(name, result)[:10]]
    return lines


def _blamed(name, result):
    variant = VARIANTS[name]
    if not variant.ours:
        return result.get("mixed", [])
    return [failure for failure in result.get("failed", [])
            if failure["kind"] == "mixed up"
            or failure["method"] != "POST" and (variant.holds or failure["kind"] != "cut")]


def _told(failure, events):
    began = failure["at"] - failure["took"]
    ill = [f"b{event.backend + 1} {event.kind} {event.words}".strip() for event in events
           if event.begin <= failure["at"] and event.end + 1.5 >= began]
    what = " ".join([failure["kind"], failure["detail"]]).strip()
    return (f"  at {failure['at']:.2f} s {failure['method']} {failure['id']}: {what} after"
            f" {failure['took']:.2f} s; then or shortly before: {', '.join(ill) or 'nothing'}")


def _time(seconds):
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
