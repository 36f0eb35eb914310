"""What was measured, against what it was to be: figures, and the report that they make."""

import json
import traceback
from dataclasses import asdict, dataclass, field

from workplace import say

GOAL_ROWS, GOAL_LARGE = 1_000_000, 10_000_000


@dataclass
class Figure:
    """One line of the table.

    `goal` bounds `ratio` where `of_ratio` is set, and otherwise Sporlog's own value; from below if
    `at_least` is set. A figure without a goal is there to be compared.
    """

    name: str
    what: str
    unit: str
    sporlog: float
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    ratio_says: str = ""
    goal: float | None = None
    of_ratio: bool = False
    at_least: bool = False
    runs: dict = field(default_factory=dict)
    note: str = ""

    def met(self):
        value = self.ratio if self.of_ratio else self.sporlog
        if self.goal is None or value is None:
            return None
        return value >= self.goal if self.at_least else value <= self.goal


def number(value, unit):
    """With three digits that count, and thousands apart."""
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:,.{digits}f}"
    return f"{text}{unit}" if unit == "×" else f"{text} {unit}".strip()


class Report:
    def __init__(self, args, machine, versions):
        self.at_scale = args.rows == GOAL_ROWS and args.large == GOAL_LARGE and not args.quick
        self.about = {**machine, **versions, "rows": args.rows, "large": args.large, "runs": args.runs}
        self.figures, self.notes, self.failures = [], [], []
        if not self.at_scale:
            self.note("Not measured at the sizes that the goals are set for: this shows that it works, no more.")
        if machine["load_average_before"] > 0.5:
            self.note(f"The machine was busy when this began (load average {machine['load_average_before']:.2f}).")

    def note(self, text):
        self.notes.append(text)

    def add(self, figure):
        self.figures.append(figure)
        if figure.note:
            self.note(f"{figure.what}: {figure.note}")

    def fail(self, name, error):
        self.failures.append({"name": name, "error": str(error)})

    def row(self, f):
        peer = f"{f.peer}: {number(f.peer_value, f.unit)}" if f.peer else "–"
        ratio = f"{number(f.ratio, '×')} {f.ratio_says}".strip() if f.ratio is not None else "–"
        goal = "–"
        if f.goal is not None:
            goal = f"{'≥' if f.at_least else '≤'} {number(f.goal, '×' if f.of_ratio else f.unit)}"
        met = {True: "yes", False: "no", None: "–"}[f.met()]
        if f.met() is not None and not self.at_scale:
            met = f"({met})"
        return [f.what, number(f.sporlog, f.unit), peer, ratio, goal, met]

    def table(self):
        """In Markdown, lined up."""
        rows = [["what", "sporlog", "peer", "ratio", "goal", "met"], *map(self.row, self.figures)]
        rows += [[failure["name"], "failed", "–", "–", "–", "no"] for failure in self.failures]
        widths = [max(map(len, column)) for column in zip(*rows)]
        rows.insert(1, ["-" * width for width in widths])
        lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
        a = self.about
        where = (
            f"{a['cpu']}, {a['cores']} cores, {a['memory_gb']} GB; Linux {a['kernel']}, {a['file_system']}, "
            f"4 KB durable in {a['fsync_4k_ms']} ms; {a['sporlog']} ({a['commit']}), DuckDB {a['duckdb']}, "
            f"PostgreSQL {a['postgresql']} with {a['postgresql_settings']}; {a['date']}"
        )
        notes = [f"- {note}" for note in [where, *self.notes]]
        return "\n".join(["", *lines, "", *notes])

    def write(self, path):
        figures = [{**asdict(f), "met": f.met() if self.at_scale else None} for f in self.figures]
        result = {
            "about": self.about,
            "at_the_goals_sizes": self.at_scale,
            "figures": figures,
            "failed": self.failures,
            "notes": self.notes,
        }
        path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def measure_all(bench, measures, about, at_scale, peers=""):
    """Takes the measures that were asked for, prints what came of them, and writes them where that was asked for, too. `about` is
    what is known of the machine, and `peers` what else is to be said of the run. Gives the exit code."""
    args, figures, failures = bench.args, [], []
    for name in args.only:
        say(f"== {name}")
        try:
            figures += measures[name](bench)
        except Exception as error:  # one that fails must not take the others' results with it
            traceback.print_exc()
            failures.append((name, error))
    print(table(figures, failures, at_scale), flush=True)
    where = (f"{about['cpu']}, {about['cores']} cores", about["file_system"], f"{about['sporlog']} ({about['commit']})", peers, about["date"])
    print(f"- {'; '.join(filter(None, where))}")
    if about["load_average_before"] > 0.5:
        print(f"- The machine was busy when this began (load average {about['load_average_before']:.2f}).")
    if args.json:
        results = [vars(figure) | {"met": figure.met() if at_scale else None} for figure in figures]
        failed = [{"name": name, "error": str(error)} for name, error in failures]
        told = {"about": about, "at_the_goals_sizes": at_scale, "figures": results, "failed": failed}
        args.json.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if failures else 0


def table(figures, failures, at_scale):
    rows = [["what", "sporlog", "peer", "ratio", "goal", "met"]]
    for figure in figures:
        peer = f"{figure.peer} {number(figure.peer_value, figure.unit)}" if figure.peer else "–"
        ratio = number(figure.ratio, "×") if figure.ratio else "–"
        goal = "–" if figure.goal is None else number(figure.goal, "×" if figure.of_ratio else figure.unit)
        met = {True: "yes", False: "NO", None: "–"}[figure.met()] if at_scale else "–"
        rows.append([figure.what, number(figure.sporlog, figure.unit), peer, ratio, goal, met])
    rows += [[name, f"failed: {error}", "–", "–", "–", "NO"] for name, error in failures]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * 6)
    return "\n".join([*lines, "", *(f"- {figure.what}: {figure.note}" for figure in figures if figure.note)])
