"""What `bench paths` is compared with: other people's libraries, each timed in this process.

    paths.py unpack SHARED OUT        unpacks the topologies of SHARED/topologies into OUT
    paths.py baselines FILE           all pairs and k shortest on the graph in FILE
    paths.py exact FILE COUNT         integer programs for the first COUNT instances in FILE

Results are one JSON document on standard output.
"""

import importlib.metadata
import itertools
import json
import multiprocessing
import pathlib
import statistics
import sys
import tarfile
import time
import zipfile

ROUNDS = 5


def unpack(shared, out):
    shared, out = pathlib.Path(shared), pathlib.Path(out)
    zoo = shared / "topologies/topology-zoo/topology-zoo-graphml.zip"
    with zipfile.ZipFile(zoo) as archive:
        archive.extract("graphml/Kdl.graphml", out)
    repetita = shared / "topologies/repetita/zoo-inverse-capacity.tar.xz"
    with tarfile.open(repetita) as archive:
        # Python 3.11 has it since 3.11.4 only.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(out / "repetita", **safe)
    return {"graphs": len(list((out / "repetita").rglob("*.graph")))}


def seconds(run):
    """The best of some rounds, and what the last gave."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        result = run()
        best = min(best, time.perf_counter() - start)
    return best, result


def baselines(file):
    import igraph
    import networkx
    import numpy
    import rustworkx

    graph = json.loads(pathlib.Path(file).read_text())
    nodes, edges = graph["nodes"], graph["edges"]
    ends = [(a, b) for a, b, _ in edges]
    weights = [float(weight) for _, _, weight in edges]
    result = {}

    g = igraph.Graph(n=nodes, edges=ends)
    spent, rows = seconds(lambda: g.distances(weights=weights))
    finite = [cell for row in rows for cell in row if cell != float("inf")]
    result["igraph"] = {"version": igraph.__version__, "seconds": spent, "sum": int(sum(finite))}

    g = rustworkx.PyGraph()
    g.add_nodes_from(range(nodes))
    g.add_edges_from([(a, b, weight) for (a, b), weight in zip(ends, weights)])
    ways = {
        "all_pairs_dijkstra_path_lengths": lambda: rustworkx.all_pairs_dijkstra_path_lengths(g, float),
        "floyd_warshall_numpy": lambda: rustworkx.floyd_warshall_numpy(g, weight_fn=float),
    }
    taken = {name: seconds(run) for name, run in ways.items()}
    best = min(taken, key=lambda name: taken[name][0])
    matrix = taken["floyd_warshall_numpy"][1]
    result["rustworkx"] = {
        "version": rustworkx.__version__,
        "function": best,
        "seconds": taken[best][0],
        "sum": int(matrix[numpy.isfinite(matrix)].sum()),
    }

    g = networkx.Graph()
    g.add_nodes_from(range(nodes))
    g.add_weighted_edges_from(edges)
    spent, lengths = [], []
    for a, b in graph["pairs"]:
        start = time.perf_counter()
        paths = list(itertools.islice(networkx.shortest_simple_paths(g, a, b, "weight"), graph["k"]))
        spent.append(time.perf_counter() - start)
        lengths.append([sum(g[a][b]["weight"] for a, b in zip(p, p[1:])) for p in paths])
    result["networkx"] = {"version": networkx.__version__, "seconds": spent, "lengths": lengths}
    return result


def solved(graph):
    """The least cost of each instance of one graph, and the seconds taken."""
    import highspy

    arcs, nodes = graph["arcs"], graph["nodes"]
    columns = len(arcs)
    inf = highspy.kHighsInf
    h = highspy.Highs()
    h.silent()
    for _, _, cost, _ in arcs:
        h.addCol(cost, 0, 1, 0, [], [])
    h.changeColsIntegrality(columns, list(range(columns)), [highspy.HighsVarType.kInteger] * columns)
    # Rows: what leaves less what enters each node, delay, hops.
    around = [[] for _ in range(nodes)]
    for at, (a, b, _, _) in enumerate(arcs):
        around[a].append((at, 1.0))
        around[b].append((at, -1.0))
    for entries in around:
        h.addRow(0, 0, len(entries), [at for at, _ in entries], [sign for _, sign in entries])
    delays = [(at, float(delay)) for at, (_, _, _, delay) in enumerate(arcs) if delay]
    h.addRow(-inf, inf, len(delays), [at for at, _ in delays], [delay for _, delay in delays])
    h.addRow(-inf, inf, columns, list(range(columns)), [1.0] * columns)
    h.setOptionValue("mip_rel_gap", 0.0)
    h.setOptionValue("mip_abs_gap", 0.5)  # costs are whole numbers

    results = []
    for instance in graph["instances"]:
        a, b = instance["from"], instance["to"]
        h.changeRowBounds(a, 1, 1)
        h.changeRowBounds(b, -1, -1)
        bound = lambda name: inf if instance[name] is None else instance[name]
        h.changeRowBounds(nodes, -inf, bound("max_delay_us"))
        h.changeRowBounds(nodes + 1, -inf, bound("max_hops"))
        for arc in instance["without"]:
            h.changeColBounds(arc, 0, 0)
        h.clearSolver()
        start = time.perf_counter()
        h.run()
        spent = time.perf_counter() - start
        status = h.getModelStatus()
        if status == highspy.HighsModelStatus.kOptimal:
            cost = round(h.getInfo().objective_function_value)
        elif status == highspy.HighsModelStatus.kInfeasible:
            cost = None
        else:
            raise RuntimeError(f"{graph['name']}: HiGHS says {status}")
        results.append({"cost": cost, "seconds": spent})
        h.changeRowBounds(a, 0, 0)
        h.changeRowBounds(b, 0, 0)
        for arc in instance["without"]:
            h.changeColBounds(arc, 0, 1)
    return graph, results


def exact(file, count):
    graphs = json.loads(pathlib.Path(file).read_text())
    left = int(count)
    for graph in graphs:
        graph["instances"] = graph["instances"][:left]
        left -= len(graph["instances"])
    graphs = [graph for graph in graphs if graph["instances"]]
    # Those that take longest first, so that both processors end at once.
    graphs.sort(key=lambda graph: -len(graph["arcs"]))
    checked, said, wrong, spent = 0, 0, [], []
    with multiprocessing.Pool(2) as pool:
        for graph, results in pool.imap_unordered(solved, graphs):
            for instance, result in zip(graph["instances"], results):
                checked += 1
                spent.append(result["seconds"])
                if instance["cost"] != result["cost"]:
                    wrong.append({"graph": graph["name"], **instance, "exact": result["cost"]})
            if checked // 1000 > said:
                said = checked // 1000
                print(f"  {checked} instances, {len(wrong)} differ", file=sys.stderr)
    return {
        "version": importlib.metadata.version("highspy"),
        "checked": checked,
        "wrong": wrong,
        "median_seconds": statistics.median(spent),
        "p99_seconds": statistics.quantiles(spent, n=100)[98],
    }


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    print(json.dumps({"unpack": unpack, "baselines": baselines, "exact": exact}[command](*arguments)))
