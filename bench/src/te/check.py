"""Judges the plans of `bench te`, sharing no code with what made them.

usage: check.py DIR, with DIR/data/NAME.graph and NAME.0000.demands, DIR/whole/NAME.json and
DIR/split/NAME.json. Routes every demand as its policies say and compares the fullest link with
what the plan claims and with shortest paths; for graphs of at most EXACT_NODES nodes solves the
linear program of all split routings with two segments by HiGHS. Writes DIR/instances.json and
prints a summary as JSON. Fails when a claim is wrong, a plan is worse than shortest paths, a
claimed bound is above the exact optimum, or a policy is none.
"""

import heapq
import json
import pathlib
import statistics
import sys
from collections import defaultdict

import highspy
import numpy as np

EXACT_NODES = 16
SEGMENTS = 2
TOLERANCE = 1e-6


def rows(path):
    """The rows of each section, by its word, without the header lines."""
    found, lines = {}, path.read_text().split("\n")
    at = 0
    while at < len(lines):
        words = lines[at].split()
        at += 1
        if words and words[0] in ("NODES", "EDGES", "DEMANDS"):
            count = int(words[1])
            found[words[0]] = [line.split() for line in lines[at + 1 : at + 1 + count]]
            at += 1 + count
    return found


class Instance:
    def __init__(self, graph):
        data = rows(graph)
        self.node = {row[0]: i for i, row in enumerate(data["NODES"])}
        self.n = len(self.node)
        self.edges = [(int(r[1]), int(r[2]), int(r[3]), float(r[4])) for r in data["EDGES"]]
        matrix = rows(graph.with_suffix(".0000.demands"))["DEMANDS"]
        self.demands = {r[0]: (int(r[1]), int(r[2]), float(r[3])) for r in matrix}
        self.into = defaultdict(list)
        self.out = defaultdict(list)
        for e, (a, b, _, _) in enumerate(self.edges):
            self.into[b].append(e)
            self.out[a].append(e)
        self.distances = [self.distances_to(t) for t in range(self.n)]

    def distances_to(self, target):
        distance = [float("inf")] * self.n
        distance[target] = 0
        heap = [(0, target)]
        while heap:
            far, node = heapq.heappop(heap)
            if far > distance[node]:
                continue
            for e in self.into[node]:
                a, _, weight, _ = self.edges[e]
                if far + weight < distance[a]:
                    distance[a] = far + weight
                    heapq.heappush(heap, (distance[a], a))
        return distance

    def loads(self, legs):
        """kbit/s on every edge, from {(from, to): kbit/s}."""
        load = [0.0] * len(self.edges)
        by_target = defaultdict(lambda: defaultdict(float))
        for (a, b), rate in legs.items():
            if a != b:
                by_target[b][a] += rate
        for target, inflow in by_target.items():
            distance = self.distances[target]
            order = sorted(range(self.n), key=lambda node: -distance[node])
            for node in order:
                rate = inflow.pop(node, 0.0)
                if rate == 0.0 or node == target:
                    continue
                hops = [
                    e
                    for e in self.out[node]
                    if self.edges[e][2] + distance[self.edges[e][1]] == distance[node]
                ]
                for e in hops:
                    load[e] += rate / len(hops)
                    inflow[self.edges[e][1]] += rate / len(hops)
        return load

    def fullest(self, legs):
        loads = zip(self.loads(legs), self.edges)
        return max((load / edge[3] for load, edge in loads), default=0.0)

    def shortest(self):
        legs = defaultdict(float)
        for a, b, rate in self.demands.values():
            legs[a, b] += rate
        return self.fullest(legs)

    def planned(self, policies, split):
        by_demand = defaultdict(list)
        for policy in policies:
            assert len(policy["segments"]) <= SEGMENTS, policy
            by_demand[policy["demand"]].append(policy)
        legs = defaultdict(float)
        for label, (a, b, rate) in self.demands.items():
            shares = by_demand.pop(label, [{"share": 1, "segments": []}])
            assert abs(sum(share["share"] for share in shares) - 1) < 1e-9, shares
            assert split or len(shares) == 1, shares
            for share in shares:
                assert share["share"] > 0, share
                stops = [a, *(self.node[s] for s in share["segments"]), b]
                for leg in zip(stops, stops[1:]):
                    legs[leg] += rate * share["share"]
        assert not by_demand, "policies of demands that are not there"
        return self.fullest(legs)

    def exact(self):
        """The least maximum utilisation over split routings with two segments, by a flow in three
        layers for each source: to the first segment, to the second, to the end."""
        n, edges = self.n, self.edges
        share = {}
        for a in range(n):
            for b in range(n):
                loads = self.loads({(a, b): 1.0})
                share[a, b] = [(e, l / edges[e][3]) for e, l in enumerate(loads) if l > 0]
        wanted = defaultdict(lambda: defaultdict(float))
        for a, b, rate in self.demands.values():
            if rate > 0:
                wanted[a][b] += rate
        scale = max(edge[3] for edge in edges)
        start, index, value = [], [], []
        right = [0.0] * len(edges)  # load - maximum <= 0

        def column(entries):
            start.append(len(index))
            for i, v in entries:
                index.append(i)
                value.append(v)

        column([(e, -1.0) for e in range(len(edges))])
        for source, ends in wanted.items():
            first = len(right)
            right += [0.0] * (2 * n)  # what comes into a layer leaves it
            last = len(right)
            right += [ends[b] / scale for b in ends]
            row = {b: last + i for i, b in enumerate(ends)}
            cost = lambda a, b: [(e, s * scale) for e, s in share[a, b]]
            for a in range(n):
                column(cost(source, a) + [(first + a, 1.0)])
                for b in range(n):
                    column(cost(a, b) + [(first + a, -1.0), (first + n + b, 1.0)])
                for b in row:
                    column(cost(a, b) + [(first + n + a, -1.0), (row[b], 1.0)])
        start.append(len(index))
        columns, infinity = len(start) - 1, highspy.kHighsInf
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = columns, len(right)
        lp.col_cost_ = np.array([1.0] + [0.0] * (columns - 1))
        lp.col_lower_ = np.zeros(columns)
        lp.col_upper_ = np.full(columns, infinity)
        lp.row_lower_ = np.array([-infinity] * len(edges) + right[len(edges) :])
        lp.row_upper_ = np.array(right)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_ = np.array(start)
        lp.a_matrix_.index_ = np.array(index)
        lp.a_matrix_.value_ = np.array(value)
        solver = highspy.Highs()
        solver.setOptionValue("output_flag", False)
        solver.passModel(lp)
        solver.run()
        assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
        return solver.getInfo().objective_function_value


def main(folder):
    found, wrong = [], []
    for graph in sorted((folder / "data").glob("*.graph")):
        instance = Instance(graph)
        result = {"name": graph.stem, "nodes": instance.n, "shortest": instance.shortest()}
        if instance.n <= EXACT_NODES:
            result["exact"] = instance.exact()
        for mode in ("whole", "split"):
            plan = json.loads((folder / mode / f"{graph.stem}.json").read_text())
            routed = instance.planned(plan["policies"], mode == "split")
            result[mode] = routed
            result[f"{mode}_seconds"] = plan["seconds"]
            result[f"{mode}_bound"] = plan["optimum_bound"]
            if abs(routed - plan["max_utilisation"]) > TOLERANCE:
                wrong.append(f"{graph.stem} {mode}: claims {plan['max_utilisation']}, is {routed}")
            if routed > result["shortest"] + TOLERANCE:
                wrong.append(f"{graph.stem} {mode}: {routed}, shortest paths {result['shortest']}")
            least = result.get("exact", routed)
            if plan["optimum_bound"] > least + TOLERANCE or routed < least - TOLERANCE:
                wrong.append(f"{graph.stem} {mode}: {plan['optimum_bound']} {least} {routed}")
        found.append(result)
    (folder / "instances.json").write_text(json.dumps(found, indent=1) + "\n")
    for line in wrong:
        print(line, file=sys.stderr)
    exact = [r for r in found if "exact" in r]
    median = lambda key: statistics.median(r[key] for r in found)
    over = lambda mode: [r[mode] / r["exact"] for r in exact]
    summary = {
        "te_instances": len(found),
        "te_median_utilisation": median("whole"),
        "te_median_utilisation_split": median("split"),
        "te_worst_seconds": max(r["whole_seconds"] for r in found),
        "te_worst_seconds_split": max(r["split_seconds"] for r in found),
        "median_on_shortest_paths": median("shortest"),
        "exact_instances": len(exact),
        "te_median_over_exact": statistics.median(over("whole")),
        "te_worst_over_exact": max(over("whole")),
        "te_median_over_exact_split": statistics.median(over("split")),
        "te_worst_over_exact_split": max(over("split")),
    }
    for mode in ("whole", "split"):
        near = sum(r[mode] <= 0.91 for r in found)
        print(f"{mode}: {near} of {len(found)} at 0.91 or below; the worst:", file=sys.stderr)
        for r in sorted(found, key=lambda r: -r[mode])[:8]:
            exact = f", exact split {r['exact']:.4f}" if "exact" in r else ""
            figures = f"{r[mode]:.4f}, bound {r[f'{mode}_bound']:.4f}, shortest {r['shortest']:.4f}"
            print(f"  {r['name']:<20} {r['nodes']:>4} nodes  {figures}{exact}", file=sys.stderr)
    print(json.dumps(summary, indent=1))
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
