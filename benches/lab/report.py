"""Figures into words: the lines while it runs, the tables, the budgets beside them."""

import statistics

from lab.scenarios import NAMES, SCENARIOS

# Of issue and design: milliseconds of server CPU a message, and the ratio to the floor that is judged.
BUDGETS = {
    "S1": {"ratio": 2.0, "cut-through": 0.10, "queue": 0.15, "postfix": 18},
    "S2": {"ratio": 2.0, "cut-through": 0.05, "queue": 0.09, "postfix": 38},
    "S3": {"ratio": 2.5, "cut-through": 0.15, "queue": 0.30, "postfix": 18},
    "S6": {"ratio": None, "cut-through": 0.30, "queue": 0.45, "postfix": 20},
}
IDLE_KIB = {"plain": 8, "TLS": 24}
LOOKUP_MS, SLOW_DISK_SHARE, CURVE = 0.04, 0.70, 1.10


def line(result):
    return (
        f"accepted {result['accepted_per_second']:7.0f}/s  delivered {result['delivered_per_second']:7.0f}/s  "
        f"CPU {result['cpu_ms']:.4f} ms  load {result['load_cpu_ms']:.4f} ms  peak {result['peak_mib']:.0f} MiB"
        + "".join(f"  {name} {value:.4f} ms" for name, value in result.get("parts_ms", {}).items())
    )


def of(rounds, key):
    return [result[key] for result in rounds]


def span(values, digits):
    """Median (lowest to highest)."""
    values = list(values)
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def ratios(rounds, others, key="cpu_ms"):
    """Round by round: those measured beside each other."""
    return [one[key] / other[key] for one, other in zip(rounds, others) if other[key]]


def judged(value, limit, unit=""):
    return f"{limit}{unit}: {'met' if value <= limit else 'missed'}"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def tables(results):
    """Markdown of all that was measured: a section for each scenario and experiment, the budgets after the scenarios."""
    parts = [section(name, results[name]) for name in SCENARIOS if name in results]
    if parts:
        parts.append("**Budgets**\n\n" + budgets({n: results[n]["figures"] for n in SCENARIOS if n in results}))
    parts += [section(name, results[name]) for name in EXPERIMENTS if name in results]
    return "\n\n".join(parts)


def section(name, one):
    """The table of one scenario or experiment, and when and on what it was measured."""
    words = scenario(name, one["figures"]) if name in SCENARIOS else EXPERIMENTS[name](one["figures"])
    rounds = f"{one['rounds']} rounds" if one["rounds"] > 1 else "measured once"
    note = f"{one['date']}, {rounds}, {one['machine']}, commit {one['commit']}. {one['note']}".strip()
    return f"{words}\n\n{note}"


def scenario(name, servers):
    rows = [row(each, servers) for each in NAMES if each in servers]
    head = ["server", "CPU ms a message", "times the floor", "accepted/s", "delivered/s", "peak MiB"]
    head += ["generator and sinks, ms", "messages a round"]
    return f"**{name}**: {SCENARIOS[name].title}\n\n{table(head, rows)}"


def row(name, servers):
    rounds, floor = servers[name], servers.get("floor", [])
    measured = ratios(rounds, floor) if name not in ("direct", "floor") else []
    return [
        name,
        span(of(rounds, "cpu_ms"), 4) if name != "direct" else "",
        span(measured, 2) if measured else "",
        span(of(rounds, "accepted_per_second"), 0),
        span(of(rounds, "delivered_per_second"), 0),
        span(of(rounds, "peak_mib"), 0) if name != "direct" else "",
        span(of(rounds, "load_cpu_ms"), 4),
        f"{rounds[0]['messages']:,}",
    ]


def budgets(figures):
    rows = []
    for scenario, servers in figures.items():
        budget = BUDGETS[scenario]
        for mode in ("cut-through", "queue"):
            if mode not in servers:
                continue
            cpu = statistics.median(of(servers[mode], "cpu_ms"))
            cells = [scenario, mode, f"{cpu:.4f}", judged(cpu, budget[mode], " ms"), "", ""]
            if servers.get("floor") and mode == "cut-through" and budget["ratio"]:
                cells[4] = judged(statistics.median(ratios(servers[mode], servers["floor"])), budget["ratio"])
            if servers.get("postfix"):
                times = statistics.median(ratios(servers["postfix"], servers[mode]))
                cells[5] = f"1/{times:.0f}"
                if mode == "cut-through":
                    cells[5] += f", budget 1/{budget['postfix']}: {'met' if times >= budget['postfix'] else 'missed'}"
            rows.append(cells)
    return table(["scenario", "mode", "CPU ms", "budget", "ratio to the floor, budget", "of Postfix's CPU"], rows)


def idle(figures):
    rows = []
    for one in figures:
        limit = IDLE_KIB[one["how"]]
        verdict = judged(one["kib_each"], limit, " KiB") if one["server"] in ("cut-through", "queue") else ""
        count, each = f"{one['connections']:,}", f"{one['kib_each']:.1f}"
        rows.append([one["server"], one["how"], count, each, f"{one['base_mib']:.0f}", verdict])
    head = ["server", "connection", "idle after EHLO", "KiB each", "MiB at 0", "budget"]
    return f"**S4**: memory of idle connections\n\n{table(head, rows)}"


def lookup(figures):
    rows = []
    for mode, kinds in figures["modes"].items():
        more = [ldap["cpu_ms"] - file["cpu_ms"] for ldap, file in zip(kinds["ldap"], kinds["file"])]
        cells = [mode, span(of(kinds["file"], "cpu_ms"), 4), span(of(kinds["ldap"], "cpu_ms"), 4), span(more, 4)]
        rows.append([*cells, judged(statistics.median(more), LOOKUP_MS, " ms more")])
    head = ["mode", "file, CPU ms", "slapd, CPU ms", "more", "budget"]
    title = f"**Look-ups**: distinct recipients, {figures['entries']:,} entries, cold cache, S2's messages"
    return f"{title}\n\n{table(head, rows)}"


def slow_disk(figures):
    share = [slow["accepted_per_second"] / fast["accepted_per_second"] for fast, slow in zip(figures["0"], figures["2"])]
    rows = []
    for delay, rounds in figures.items():
        rates = span(of(rounds, "accepted_per_second"), 0)
        syncs = [result["messages"] / result["syncs"] for result in rounds]
        rows.append([f"{delay} ms", rates, span(of(rounds, "sync_ms"), 2), span(syncs, 1)])
    verdict = "met" if statistics.median(share) >= SLOW_DISK_SHARE else "missed"
    head = ["delay", "accepted/s", "a sync, as Fingerpost saw it, ms", "messages a sync"]
    text = f"Keeps {span([100 * part for part in share], 0)} % of its rate; budget 70 %: {verdict}."
    return f"**Slow disk**: queue, 200 sessions, 4 KiB, each sync 2 ms slower\n\n{table(head, rows)}\n\n{text}"


CURVES = {"domains": "accepted domains", "recipients": "recipients in a file directory", "queued": "messages waiting"}


def curve(figures):
    name = figures["what"]
    rows = []
    for mode, sizes in figures["modes"].items():
        (small, few), *more = sizes.items()
        for large, many in more:
            growth = statistics.median(ratios(many, few))
            cells = [mode, f"{int(small):,} and {int(large):,}"]
            cells += [span(of(few, "cpu_ms"), 4), span(of(many, "cpu_ms"), 4), f"{growth:.2f}"]
            cells += [span(of(many, "peak_mib"), 0), judged(growth, CURVE)]
            rows.append(cells)
    head = ["mode", CURVES[name], "CPU ms, few", "CPU ms, many", "ratio", "peak MiB, many", "budget"]
    return f"**Against {CURVES[name]}**: S2's messages\n\n{table(head, rows)}"


def queued(figures):
    return f"{curve(figures)}\n\nAccepting the most that waited took {figures['filling_seconds']:.0f} s."


EXPERIMENTS = {
    "S4": idle, "lookup": lookup, "slow-disk": slow_disk,
    "domains": curve, "recipients": curve, "queued": queued,
}  # fmt: skip
