#!/usr/bin/env python3
"""Draws the plots of docs/performance.md from what `cargo bench --bench throughput` has measured.

    cargo bench --bench throughput -- --protocol json,cbor --long
    python3 benches/plot.py            # target/bench/results.jsonl -> docs/images/*.svg

Needs nothing but Python.
"""

import json
import math
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "target" / "bench" / "results.jsonl"
IMAGES = PROJECT / "docs" / "images"
WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 76, 20, 48, 52
COLOURS = {"json": "#1f6feb", "cbor": "#bf5700", "floor": "#6e7781"}


def nice_ticks(highest: float) -> list[float]:
    """Round numbers from 0 to a little above the highest value."""
    step = 10 ** math.floor(math.log10(highest / 4 or 1))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10) if step * factor * 5 >= highest)
    return [step * n for n in range(6) if step * (n - 1) < highest]


def short(number: float) -> str:
    return f"{number / 1000:g}k" if number >= 1000 else f"{number:g}"


def plot(title: str, y_title: str, x_title: str, x_names: list[str], lines: dict[str, list[float | None]]) -> str:
    """Lines over named places on the x axis, as SVG that is readable on white and on black."""
    ticks = nice_ticks(max(value for values in lines.values() for value in values if value is not None))
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    x = [LEFT + inner_width * (n + 0.5) / len(x_names) for n in range(len(x_names))]

    def y(value: float) -> float:
        return TOP + inner_height * (1 - value / ticks[-1])

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="15" fill="#1f2328">{title}</text>',
    ]
    for tick in ticks:
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#d0d7de"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="#57606a">{short(tick)}</text>')
    for place, name in zip(x, x_names):
        out.append(f'<text x="{place:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#57606a">{name}</text>')
    out.append(f'<text x="{LEFT + inner_width / 2}" y="{HEIGHT - 10}" text-anchor="middle" fill="#57606a">{x_title}</text>')
    out.append(f'<text x="{LEFT}" y="40" fill="#57606a">{y_title}</text>')
    legend = WIDTH - RIGHT
    for name, values in reversed(lines.items()):
        colour = COLOURS[name]
        points = [(place, y(value)) for place, value in zip(x, values) if value is not None]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        out += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{colour}"/>' for px, py in points]
        label = name.upper() if name != "floor" else name
        out.append(f'<text x="{legend}" y="22" text-anchor="end" fill="{colour}" font-weight="bold">{label}</text>')
        legend -= 12 + 9 * len(label)
    return "\n".join([*out, "</svg>", ""])


def main() -> None:
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    cases = {line["case"]: line for line in lines if line["kind"] == "case"}
    protocols = [name for name in ("json", "cbor") if any(case["protocol"] == name for case in cases.values())]

    def series(names: list[str], figure: str) -> dict[str, list[float | None]]:
        found = {p: [cases.get(f"{name}, {p}", {}).get(figure) for name in names] for p in protocols}
        return {p: values for p, values in found.items() if any(value is not None for value in values)}

    sizes = ["270 B", "1 KiB", "10 KiB"]
    latencies = ["270 B", "270 B, 20 ms", "270 B, 100 ms"]
    counts = ["270 B, 1 million", "270 B, 10 million"]
    cpu = series(sizes, "cpu_us_per_record")
    cpu["floor"] = [cases.get(f"{name}, {protocols[0]}", {}).get("floor_us_per_record") for name in sizes]
    plots = {
        "size": plot("Throughput by record size", "MB/s of input", "length of a line of input", sizes,
                     series(sizes, "mb_per_second")),
        "cpu": plot("CPU by record size", "µs a record", "length of a line of input", sizes, cpu),
        "latency": plot("Throughput by latency", "records/s of 270 B", "time to the endpoint's answer",
                        ["0 ms", "20 ms", "100 ms"], series(latencies, "records_per_second")),
    }
    if any(name.startswith(counts[1]) for name in cases):
        plots["growth"] = plot("Cost growth", "µs of CPU a record of 270 B", "records in the sync", ["1 million", "10 million"],
                               series(counts, "cpu_us_per_record"))
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, svg in plots.items():
        (IMAGES / f"{name}.svg").write_text(svg, encoding="utf-8")
        print(f"docs/images/{name}.svg")


if __name__ == "__main__":
    sys.exit(main())
