"""docs/performance.svg: server CPU a message, a panel a scenario, logarithmic; a dot is the median, its line the range."""

import math
import statistics

from lab.scenarios import NAMES, SCENARIOS

LEFT, RIGHT, ROW, HEAD = 130, 90, 22, 34
WIDTH = 760
LOW, HIGH = 0.01, 10.0  # ms
COLOURS = {"floor": "#888888", "cut-through": "#0b6e4f", "queue": "#2a9d8f", "postfix": "#b5651d", "haraka": "#8a5a83"}


def x(ms):
    share = math.log10(min(max(ms, LOW), HIGH) / LOW) / math.log10(HIGH / LOW)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def svg(figures):
    """`figures`: {scenario: {server: [round, ...]}}."""
    parts, top = [], 30
    for scenario, servers in figures.items():
        names = [name for name in NAMES if name in servers and name != "direct"]
        parts.append(text(10, top + 18, f"{scenario}: {SCENARIOS[scenario].title}", "font-weight='bold'"))
        bottom = top + HEAD + ROW * len(names)
        for ms in (0.01, 0.1, 1, 10):
            parts.append(f"<line x1='{x(ms):.0f}' x2='{x(ms):.0f}' y1='{top + 26}' y2='{bottom}' stroke='#dddddd'/>")
            parts.append(text(x(ms), bottom + 12, f"{ms:g} ms", "font-size='10' fill='#666666' text-anchor='middle'"))
        for number, name in enumerate(names):
            parts += dot(name, servers[name], top + HEAD + ROW * number + 11)
        top = bottom + 26
    head = f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{top}' font-family='sans-serif' font-size='13'>"
    title = text(10, 18, "Server CPU a message (user and system), logarithmic scale: further left is better")
    return "\n".join([head, "<rect width='100%' height='100%' fill='#ffffff'/>", title, *parts, "</svg>", ""])


def dot(name, rounds, y):
    values = [result["cpu_ms"] for result in rounds]
    middle, colour = statistics.median(values), COLOURS.get(name, "#444444")
    yield text(LEFT - 8, y + 4, name, "text-anchor='end'")
    yield f"<line x1='{x(min(values)):.1f}' x2='{x(max(values)):.1f}' y1='{y}' y2='{y}' stroke='{colour}' stroke-width='3'/>"
    yield f"<circle cx='{x(middle):.1f}' cy='{y}' r='6' fill='{colour}'/>"
    yield text(max(x(middle), x(max(values))) + 10, y + 4, f"{middle:.3f}", "font-size='12'")


def text(left, y, words, more=""):
    return f"<text x='{left:.0f}' y='{y:.0f}' {more}>{words}</text>"
